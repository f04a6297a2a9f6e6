#include "launch/evaluator.h"

#include <numbers>
#include <numeric>

#include "core/error.h"

namespace convoy {

Evaluator::Evaluator(LossModel& model, const Replicas& replicas, const ValidationWindows& data,
                     std::int64_t batches)
    : model_(model),
      replicas_(replicas),
      data_(data),
      micro_batches_((data.size() + model.sequences() - 1) / model.sequences()),
      batch_(model.sequences(), model.length()) {
  if (batches > 0) micro_batches_ = std::min(micro_batches_, batches);
}

double Evaluator::run_micro_batch(std::int64_t index) {
  for (std::int64_t row = 0; row < batch_.sequences; ++row) {
    data_.fill(batch_, row, index * batch_.sequences + row);
  }
  return model_.nats(batch_);
}

// Where one rank contributes a micro-batch's sum, the sum over ranks only gathers.
EvalResult Evaluator::run() {
  std::vector<double> sums(static_cast<std::size_t>(micro_batches_), 0.0);
  model_.begin_evaluation();
  for (std::int64_t i = replicas_.index; i < micro_batches_; i += replicas_.count) {
    sums[static_cast<std::size_t>(i)] = run_micro_batch(i);
  }
  model_.end_evaluation();
  replicas_.world
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
