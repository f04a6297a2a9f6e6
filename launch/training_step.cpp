#include "launch/training_step.h"

#include <utility>

#include "launch/lr_schedule.h"

namespace convoy {

std::string why_not_recorded(const RunConfig& config, int ranks) {
  if (!config.train.cuda_graph) return "train.cuda_graph is false";
  if (ranks > 1) return concat("its ", ranks, " ranks talk to each other");
  if (config.numerics == NumericsMode::invariant) {
    return "in invariant mode the host sums the gradient norm";
  }
  return config.parallel.zero > 0 ? "it gathers weights for ZeRO" : "";
}

void run_loaded_step(RecordedRegion& region, Backend& backend, PipelineModel& model,
                     Optimizer& optimizer, const Tensor& loss) {
  region.run(model.loaded_shape(), [&] {
    model.run_loaded_step();
    backend.sum(loss, model.nats());
    optimizer.apply(loss);
  });
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

StepOutcome TrainingStep::run(std::int64_t step, bool stop, NextStep next) {
  const StepOutcome outcome = alone_ ? run_alone(step, stop, next) : run_together(step, stop);
  if (!outcome.stop_requested) model_.publish();
  return outcome;
}

StepOutcome TrainingStep::run_together(std::int64_t step, bool stop) {
  const StepResult result = gradients_.run(step, stop);
  if (result.stop_requested) return {.stop_requested = true};
  const double rate = learning_rate(config_, step);
  return {false, result.loss, rate, optimizer_.update(rate, result.loss)};
}

void TrainingStep::load(std::int64_t step) {
  targets_ = gradients_.load(step);
  loaded_step_ = step;
}

// A step without targets is left to be refused when it is its turn.
void TrainingStep::load_ahead(std::int64_t step) {
  const bool follows = loaded_step_ != step && step <= total_steps(config_);
  if (follows && gradients_.has_targets(step)) load(step);
}

void TrainingStep::begin(std::int64_t step) {
  if (loaded_step_ != step) load(step);
  begun_ = std::make_unique<Begun>();
  begun_->step = step;
  begun_->targets = targets_;
  begun_->learning_rate = learning_rate(config_, step);
  optimizer_.set_rate(begun_->learning_rate);
  run_loaded_step(region_, backend_, model_, optimizer_, loss_.view());
  begun_->found.fetch(backend_, model_.nats(), optimizer_);
}

// What is loaded while a step runs comes behind it on the device, and what is begun behind that.
StepOutcome TrainingStep::run_alone(std::int64_t step, bool stop, NextStep next) {
  if (!begun_ || begun_->step != step) {
    if (gradients_.agree_to_stop(stop)) return {.stop_requested = true};
    begin(step);
  }
  const std::unique_ptr<Begun> now = std::move(begun_);
  load_ahead(step + 1);
  const bool goes_on = next == NextStep::at_once && region_.replayed() && loaded_step_ == step + 1;
  if (goes_on && !gradients_.agree_to_stop(stop)) {
    begin(step + 1);
    load_ahead(step + 2);
  }
  now->found.wait();
  return {false, now->found.nats() / now->targets, now->learning_rate, now->found.update()};
}

}  // namespace convoy
