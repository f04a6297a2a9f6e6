#include "models/head.h"

#include <algorithm>
#include <bit>

namespace convoy {
namespace {

Tensor range_of(const Tensor& values, std::int64_t begin, std::int64_t count) {
  return values.reshape({values.size(), 1}).row_range(begin, count).reshape({count});
}

}  // namespace

// Fixed by the vocabulary and the kind of device alone, because it decides the order in which
// gradients are added. A CPU keeps a chunk in its cache; a GPU needs thousands of rows at once.
std::int64_t Head::chunk_rows(const Context& context) const {
  constexpr std::int64_t kLogits = std::int64_t{1} << 18;
  constexpr std::int64_t kGpuLogits = std::int64_t{1} << 29, kGpuRows = 32768;
  if (context.backend.device() == DeviceKind::cpu) {
    return std::max<std::int64_t>(64, kLogits / weight_->shape[0]);
  }
  const auto rows = static_cast<std::uint64_t>(kGpuLogits / weight_->shape[0]);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::bit_floor(rows)), 64, kGpuRows);
}

Tensor Head::logits(const Context& context, Tensor hidden) const {
  Tensor result = context.take({hidden.rows(), weight_->shape[0]});
  ops::matmul(context, result, hidden, Transpose::no, weight_->value, Transpose::yes);
  return result;
}

void Head::losses(const Context& context, Tensor losses, Tensor hidden, Tensor targets) const {
  const std::int64_t most = chunk_rows(context);
  for (std::int64_t begin = 0; begin < hidden.rows(); begin += most) {
    const ArenaScope scope(context.arena);
    const std::int64_t count = std::min(most, hidden.rows() - begin);
    const Tensor target = range_of(targets, begin, count);
    Tensor chunk = logits(context, hidden.row_range(begin, count));
    Tensor statistics = context.take_statistics({count, 3});
    ops::softmax_statistics(context, statistics, chunk, target, 0);
    ops::cross_entropy_losses(context, range_of(losses, begin, count), statistics, target);
  }
}

void Head::losses_and_gradients(const Context& context, Tensor losses, Tensor dhidden,
                                Tensor hidden, Tensor targets, double scale) const {
  const std::int64_t most = chunk_rows(context);
  for (std::int64_t begin = 0; begin < hidden.rows(); begin += most) {
    const ArenaScope scope(context.arena);
    const std::int64_t count = std::min(most, hidden.rows() - begin);
    const Tensor target = range_of(targets, begin, count);
    const Tensor rows = hidden.row_range(begin, count);
    Tensor chunk = logits(context, rows);
    Tensor statistics = context.take_statistics({count, 3});
    ops::softmax_statistics(context, statistics, chunk, target, 0);
    ops::cross_entropy_losses(context, range_of(losses, begin, count), statistics, target);
    ops::cross_entropy_backward(context, chunk, statistics, target, 0, scale);
    ops::matmul(context, dhidden.row_range(begin, count), chunk, Transpose::no, weight_->value,
                Transpose::no);
    ops::matmul(context, *gradient_, chunk, Transpose::yes, rows, Transpose::no, Accumulate::yes);
  }
}

}  // namespace convoy
