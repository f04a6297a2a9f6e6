#include "launch/training_step.h"

namespace convoy {

std::string why_not_recorded(const RunConfig& config, int ranks) {
  if (!config.train.cuda_graph) return "train.cuda_graph is false";
  if (ranks > 1) return concat("its ", ranks, " ranks talk to each other");
  if (config.numerics == NumericsMode::invariant) {
    return "in invariant mode the host sums the gradient norm";
  }
  return config.parallel.zero > 0 ? "it gathers weights for ZeRO" : "";
}

TrainingStep::TrainingStep(const RunConfig& config, const Layout& layout, Backend& backend,
                           PipelineModel& model, GradientStep& gradients, Optimizer& optimizer)
    : config_(config),
      alone_(layout.world().size() == 1),
      backend_(backend),
      model_(model),
      gradients_(gradients),
      optimizer_(optimizer),
      region_(backend, why_not_recorded(config, layout.world().size())),
      loss_(backend, DType::f64, {1}) {}

StepOutcome TrainingStep::run(std::int64_t step, double learning_rate, bool stop) {
  if (alone_) return run_alone(step, learning_rate, stop);
  const StepResult result = gradients_.run(step, stop);
  if (result.stop_requested) return {.stop_requested = true};
  const UpdateResult update = optimizer_.update(learning_rate, result.loss);
  model_.publish();
  return {false, result.loss, update};
}

void TrainingStep::load(std::int64_t step) {
  targets_ = gradients_.load(step);
  loaded_step_ = step;
}

// The host waits once, for the nats; the next batch is on its way by then, behind the step.
StepOutcome TrainingStep::run_alone(std::int64_t step, double learning_rate, bool stop) {
  if (gradients_.agree_to_stop(stop)) return {.stop_requested = true};
  if (loaded_step_ != step) load(step);
  const double targets = targets_;
  optimizer_.set_rate(learning_rate);
  region_.run(model_.loaded_shape(), [this] {
    model_.run_loaded_step();
    backend_.sum(loss_.view(), model_.nats());
    optimizer_.apply(loss_.view());
  });
  if (step < total_steps(config_) && gradients_.has_targets(step + 1)) load(step + 1);
  const double loss = gradients_.nats() / targets;
  const UpdateResult update = optimizer_.result();
  model_.publish();
  return {false, loss, update};
}

}  // namespace convoy
