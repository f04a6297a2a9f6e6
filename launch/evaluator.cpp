#include "launch/evaluator.h"

#include <numbers>
#include <numeric>

#include "core/backend.h"

namespace convoy {

Evaluator::Evaluator(ModelInstance& instance, Communicator& ranks, const ValidationWindows& data,
                     std::int64_t batches)
    : instance_(instance),
      ranks_(ranks),
      data_(data),
      micro_batches_((data.size() + instance.sequences() - 1) / instance.sequences()),
      batch_(instance.sequences(), instance.model().config().seq_len),
      device_batch_(instance.backend(), batch_.sequences, batch_.length),
      losses_(instance.backend(), DType::f64, {device_batch_.view().rows()}),
      host_losses_(static_cast<std::size_t>(device_batch_.view().rows())) {
  if (batches > 0) micro_batches_ = std::min(micro_batches_, batches);
}

double Evaluator::run_micro_batch(std::int64_t index) {
  for (std::int64_t row = 0; row < batch_.sequences; ++row) {
    data_.fill(batch_, row, index * batch_.sequences + row);
  }
  const BatchView& view = device_batch_.load(batch_);
  instance_.model().evaluate(instance_.context(), view, losses_.view());
  instance_.backend().copy(Tensor(host_losses_.data(), DType::f64, DeviceKind::cpu,
                                  {static_cast<std::int64_t>(host_losses_.size())}),
                           losses_.view());
  return std::accumulate(host_losses_.begin(), host_losses_.end(), 0.0);
}

// Every micro-batch has one rank that contributes its sum, so the sum over ranks only gathers.
EvalResult Evaluator::run() {
  std::vector<double> sums(static_cast<std::size_t>(micro_batches_), 0.0);
  for (std::int64_t i = ranks_.rank(); i < micro_batches_; i += ranks_.size()) {
    sums[static_cast<std::size_t>(i)] = run_micro_batch(i);
  }
  ranks_
      .all_reduce(Tensor(sums.data(), DType::f64, DeviceKind::cpu, {micro_batches_}),
                  Reduction::sum)
      .wait();
  const double nats = std::accumulate(sums.begin(), sums.end(), 0.0);
  EvalResult result;
  for (std::int64_t window = 0; window < micro_batches_ * batch_.sequences; ++window) {
    if (window >= data_.size()) break;
    const auto counted = data_.counted(window);
    result.targets += counted.targets;
    result.bytes += counted.bytes;
  }
  result.loss = nats / static_cast<double>(result.targets);
  result.bits_per_byte = nats / std::numbers::ln2 / static_cast<double>(result.bytes);
  return result;
}

}  // namespace convoy
