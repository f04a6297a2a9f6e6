#include "launch/evaluator.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "core/error.h"

namespace convoy {
namespace {

// Standard error of sum(y) / sum(x) over n clusters (Cochran, Sampling Techniques, 6.4).
double ratio_error(const std::vector<double>& y, const std::vector<double>& x) {
  const double total = std::accumulate(x.begin(), x.end(), 0.0);
  const double ratio = std::accumulate(y.begin(), y.end(), 0.0) / total;
  const auto n = static_cast<double>(y.size());
  double squares = 0;
  for (std::size_t i = 0; i < y.size(); ++i) squares += std::pow(y[i] - ratio * x[i], 2);
  return std::sqrt(n / (n - 1) * squares) / total;  // 0/0 for a single cluster
}

}  // namespace

Evaluator::Evaluator(LossModel& model, const Replicas& replicas, const ValidationData& data,
                     std::int64_t batches)
    : model_(model),
      replicas_(replicas),
      data_(data),
      micro_batches_((data.size() + model.sequences() - 1) / model.sequences()),
      batch_(model.sequences(), model.length()) {
  if (batches > 0) micro_batches_ = std::min(micro_batches_, batches);
}

BatchScore Evaluator::run_micro_batch(std::int64_t index) {
  for (std::int64_t row = 0; row < batch_.sequences; ++row) {
    data_.fill(batch_, row, index * batch_.sequences + row);
  }
  return model_.score(batch_);
}

std::int64_t Evaluator::count(std::int64_t index, EvalResult& result) const {
  std::int64_t targets = 0;
  const std::int64_t first = index * batch_.sequences;
  const std::int64_t last = std::min<std::int64_t>(first + batch_.sequences, data_.size());
  for (std::int64_t window = first; window < last; ++window) {
    const auto counted = data_.counted(window);
    targets += counted.targets;
    result.bytes += counted.bytes;
  }
  result.targets += targets;
  return targets;
}

// Where one rank contributes a micro-batch's sums, the sum over ranks only gathers.
EvalResult Evaluator::run() {
  const auto count_of = static_cast<std::size_t>(micro_batches_);
  std::vector<double> sums(2 * count_of, 0.0);  // nats of each, then right ones of each
  model_.begin_evaluation();
  for (std::int64_t i = replicas_.index; i < micro_batches_; i += replicas_.count) {
    const BatchScore score = run_micro_batch(i);
    sums[static_cast<std::size_t>(i)] = score.nats;
    sums[count_of + static_cast<std::size_t>(i)] = static_cast<double>(score.right);
  }
  model_.end_evaluation();
  replicas_.world
      .all_reduce(Tensor(sums.data(), DType::f64, DeviceKind::cpu, {2 * micro_batches_}),
                  Reduction::sum)
      .wait();
  const double right = std::accumulate(sums.begin() + micro_batches_, sums.end(), 0.0);
  sums.resize(count_of);
  const double nats = std::accumulate(sums.begin(), sums.end(), 0.0);
  EvalResult result;
  std::vector<double> targets;
  for (std::int64_t i = 0; i < micro_batches_; ++i) {
    targets.push_back(static_cast<double>(count(i, result)));
  }
  result.loss = nats / static_cast<double>(result.targets);
  result.accuracy = right / static_cast<double>(result.targets);
  result.last_token_accuracy = data_.last_token_accuracy().value_or(std::nan(""));
  result.standard_error = ratio_error(sums, targets);
  result.bits_per_byte = result.bytes > 0
                             ? nats / std::numbers::ln2 / static_cast<double>(result.bytes)
                             : std::nan("");
  return result;
}

}  // namespace convoy
