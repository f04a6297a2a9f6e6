#include "launch/row_scores.h"

#include <numeric>

#include "core/backend.h"

namespace convoy {

RowScores::RowScores(Backend& backend, std::int64_t rows, DType run)
    : backend_(backend),
      losses_(backend, DType::f64, {rows}),
      statistics_(backend, run == DType::bf16 ? DType::f32 : run, {rows, 3}),
      host_losses_(static_cast<std::size_t>(rows)),
      host_statistics_(static_cast<std::size_t>(3 * rows) * size_of(statistics_.view().dtype())),
      host_targets_(static_cast<std::size_t>(rows)) {}

double RowScores::nats() {
  const auto rows = static_cast<std::int64_t>(host_losses_.size());
  backend_.copy(Tensor(host_losses_.data(), DType::f64, DeviceKind::cpu, {rows}), losses());
  return std::accumulate(host_losses_.begin(), host_losses_.end(), 0.0);
}

// The target's logit is the highest where it equals the maximum: both come from the same logits.
BatchScore RowScores::sum(const Tensor& targets) {
  BatchScore score{nats(), 0};
  const std::int64_t rows = targets.size();
  const Tensor host(host_statistics_.data(), statistics().dtype(), DeviceKind::cpu, {rows, 3});
  backend_.copy(host, statistics());
  backend_.copy(Tensor(host_targets_.data(), DType::i32, DeviceKind::cpu, {rows}), targets);
  dispatch_real(host.dtype(), [&]<class T>() {
    const T* row = host.data<T>();  // maximum, sum of exponentials, the target's logit
    for (const std::int32_t target : host_targets_) {
      if (target >= 0 && row[2] == row[0]) ++score.right;
      row += 3;
    }
  });
  return score;
}

}  // namespace convoy
