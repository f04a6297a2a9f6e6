#include "launch/gradient_step.h"

#include <algorithm>
#include <numeric>

namespace convoy {

GradientStep::GradientStep(const RunConfig& config, const Layout& layout, PipelineModel& model,
                           const TrainingData& data)
    : config_(config),
      layout_(layout),
      model_(model),
      data_(data),
      own_(layout.micro_batches()),
      nats_(static_cast<std::size_t>(micro_batches(config))) {}

std::vector<Batch> GradientStep::loaded(std::int64_t first_sample) const {
  const std::int64_t sequences = config_.train.micro_batch;
  std::vector<Batch> batches(static_cast<std::size_t>(own_.end - own_.begin),
                             Batch(sequences, config_.model.seq_len));
  for (std::int64_t i = own_.begin; i < own_.end; ++i) {
    for (std::int64_t row = 0; row < sequences; ++row) {
      data_.fill(batches[static_cast<std::size_t>(i - own_.begin)], row,
                 first_sample + i * sequences + row);
    }
  }
  return batches;
}

void GradientStep::take_batches(std::int64_t first_sample) {
  if (ahead_.valid()) batches_ = ahead_.get();
  if (ahead_first_sample_ != first_sample) batches_ = loaded(first_sample);
}

void GradientStep::load_ahead(std::int64_t first_sample) {
  ahead_first_sample_ = first_sample;
  ahead_ = std::async(std::launch::async, [this, first_sample] { return loaded(first_sample); });
}

bool GradientStep::agree_to_stop(bool stop) {
  std::int32_t wishes = stop ? 1 : 0;
  layout_.world()
      .all_reduce(Tensor(&wishes, DType::i32, DeviceKind::cpu, {1}), Reduction::sum)
      .wait();
  return wishes > 0;
}

// Every element has one rank that contributes it, so a sum over ranks only gathers.
double GradientStep::sum_over_micro_batches() {
  const auto size = static_cast<std::int64_t>(nats_.size());
  layout_.world()
      .all_reduce(Tensor(nats_.data(), DType::f64, DeviceKind::cpu, {size}), Reduction::sum)
      .wait();
  return std::accumulate(nats_.begin(), nats_.end(), 0.0);
}

bool GradientStep::has_targets(std::int64_t step) const {
  return data_.counted_targets(first_sample_of(step), step_samples()) > 0;
}

double GradientStep::prepare(std::int64_t step) {
  const std::int64_t samples = step_samples(), first_sample = first_sample_of(step);
  const auto targets = static_cast<double>(data_.counted_targets(first_sample, samples));
  if (targets == 0) {
    throw Error(concat("step ", step, " has no target that counts: in each of its ", samples,
                       " windows every target begins a document; set data.pack = \"stream\", a "
                       "larger train.batch_tokens, or train on longer documents"));
  }
  take_batches(first_sample);
  if (step < total_steps(config_)) load_ahead(first_sample + samples);
  return targets;
}

std::span<double> GradientStep::own_nats() {
  return std::span(nats_).subspan(static_cast<std::size_t>(own_.begin), batches_.size());
}

StepResult GradientStep::run(std::int64_t step, bool stop) {
  if (agree_to_stop(stop)) return {0, true};
  const double targets = prepare(step);
  std::fill(nats_.begin(), nats_.end(), 0.0);
  model_.run_step({batches_, 1 / targets, own_nats()});
  return {sum_over_micro_batches() / targets, false};
}

double GradientStep::load(std::int64_t step) {
  const double targets = prepare(step);
  model_.load({batches_, 1 / targets, {}});
  return targets;
}

}  // namespace convoy
