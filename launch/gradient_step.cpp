#include "launch/gradient_step.h"

#include <numeric>

#include "core/backend.h"
#include "launch/stopwatch.h"

namespace convoy {

GradientStep::GradientStep(const RunConfig& config, ModelInstance& instance, Communicator& ranks,
                           const TrainingData& data)
    : config_(config),
      instance_(instance),
      ranks_(ranks),
      data_(data),
      count_(micro_batches(config) / ranks.size()),
      first_(count_ * ranks.rank()),
      batches_(static_cast<std::size_t>(count_),
               Batch(config.train.micro_batch, config.model.seq_len)),
      device_batch_(instance.backend(), config.train.micro_batch, config.model.seq_len),
      losses_(instance.backend(), DType::f64, {device_batch_.view().rows()}),
      host_losses_(static_cast<std::size_t>(device_batch_.view().rows())) {
  if (config.numerics == NumericsMode::invariant) {
    const Tensor gradients = instance.store().gradients();
    tree_.emplace(instance.backend(), gradients.dtype(), gradients.size());
  }
}

void GradientStep::load_batches(std::int64_t first_sample) {
  const std::int64_t sequences = config_.train.micro_batch;
  for (std::int64_t i = 0; i < count_; ++i) {
    for (std::int64_t row = 0; row < sequences; ++row) {
      data_.fill(batches_[static_cast<std::size_t>(i)], row,
                 first_sample + (first_ + i) * sequences + row);
    }
  }
}

bool GradientStep::agree_to_stop(bool stop) {
  std::int32_t wishes = stop ? 1 : 0;
  const Stopwatch wait;
  ranks_.all_reduce(Tensor(&wishes, DType::i32, DeviceKind::cpu, {1}), Reduction::sum).wait();
  wait_seconds_ += wait.seconds();
  return wishes > 0;
}

double GradientStep::run_micro_batch(std::int64_t local, double scale) {
  const Doing doing(concat("micro-batch ", first_ + local));
  const BatchView& batch = device_batch_.load(batches_[static_cast<std::size_t>(local)]);
  instance_.model().train(instance_.context(), batch, losses_.view(), scale);
  instance_.backend().copy(Tensor(host_losses_.data(), DType::f64, DeviceKind::cpu,
                                  {static_cast<std::int64_t>(host_losses_.size())}),
                           losses_.view());
  return std::accumulate(host_losses_.begin(), host_losses_.end(), 0.0);
}

// Every element has one rank that contributes it, so a sum over ranks only gathers.
double GradientStep::sum_over_micro_batches(std::vector<double> sums) {
  const auto size = static_cast<std::int64_t>(sums.size());
  const Stopwatch wait;
  ranks_.all_reduce(Tensor(sums.data(), DType::f64, DeviceKind::cpu, {size}), Reduction::sum)
      .wait();
  wait_seconds_ += wait.seconds();
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

void GradientStep::reduce_gradients() {
  const Stopwatch wait;
  if (tree_) {
    tree_->finish(instance_.store().gradients(), ranks_);
  } else {
    ranks_.all_reduce(instance_.store().gradients(), Reduction::sum).wait();
  }
  wait_seconds_ += wait.seconds();
  instance_.store().add_second_gradients();
}

StepResult GradientStep::run(std::int64_t step, bool stop) {
  wait_seconds_ = 0;
  if (agree_to_stop(stop)) return {0, wait_seconds_, true};
  const std::int64_t samples = micro_batches(config_) * config_.train.micro_batch;
  const std::int64_t first_sample = (step - 1) * samples;
  const auto targets = static_cast<double>(data_.counted_targets(first_sample, samples));
  CHECK(targets > 0, "no target counts in samples ", first_sample, " to ",
        first_sample + samples - 1);
  load_batches(first_sample);
  ParameterStore& store = instance_.store();
  std::vector<double> sums(static_cast<std::size_t>(micro_batches(config_)), 0.0);
  store.zero_gradients();
  for (std::int64_t i = 0; i < count_; ++i) {
    if (tree_) store.zero_gradients();
    sums[static_cast<std::size_t>(first_ + i)] = run_micro_batch(i, 1 / targets);
    if (tree_) instance_.backend().copy(tree_->next(first_ + i), store.gradients());
  }
  reduce_gradients();
  const double nats = sum_over_micro_batches(std::move(sums));
  return {nats / targets, wait_seconds_, false};
}

}  // namespace convoy
