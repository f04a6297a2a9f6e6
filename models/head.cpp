#include "models/head.h"

#include <algorithm>

namespace convoy {
namespace {

Tensor range_of(const Tensor& values, std::int64_t begin, std::int64_t count) {
  return values.reshape({values.size(), 1}).row_range(begin, count).reshape({count});
}

}  // namespace

// Fixed by the vocabulary alone, because it decides the order in which gradients are added.
std::int64_t Head::chunk_rows() const {
  constexpr std::int64_t kLogits = std::int64_t{1} << 18;
  return std::max<std::int64_t>(64, kLogits / weight_->shape[0]);
}

Tensor Head::logits(const Context& context, Tensor hidden) const {
  Tensor result = context.take({hidden.rows(), weight_->shape[0]});
  ops::matmul(context, result, hidden, Transpose::no, weight_->value, Transpose::yes);
  return result;
}

void Head::losses(const Context& context, Tensor losses, Tensor hidden, Tensor targets) const {
  for (std::int64_t begin = 0; begin < hidden.rows(); begin += chunk_rows()) {
    const ArenaScope scope(context.arena);
    const std::int64_t count = std::min(chunk_rows(), hidden.rows() - begin);
    const Tensor target = range_of(targets, begin, count);
    Tensor chunk = logits(context, hidden.row_range(begin, count));
    Tensor statistics = context.take({count, 3});
    ops::softmax_statistics(context, statistics, chunk, target, 0);
    ops::cross_entropy_losses(context, range_of(losses, begin, count), statistics, target);
  }
}

void Head::losses_and_gradients(const Context& context, Tensor losses, Tensor dhidden,
                                Tensor hidden, Tensor targets, double scale) const {
  for (std::int64_t begin = 0; begin < hidden.rows(); begin += chunk_rows()) {
    const ArenaScope scope(context.arena);
    const std::int64_t count = std::min(chunk_rows(), hidden.rows() - begin);
    const Tensor target = range_of(targets, begin, count);
    const Tensor rows = hidden.row_range(begin, count);
    Tensor chunk = logits(context, rows);
    Tensor statistics = context.take({count, 3});
    ops::softmax_statistics(context, statistics, chunk, target, 0);
    ops::cross_entropy_losses(context, range_of(losses, begin, count), statistics, target);
    ops::cross_entropy_backward(context, chunk, statistics, target, 0, scale);
    ops::matmul(context, dhidden.row_range(begin, count), chunk, Transpose::no, weight_->value,
                Transpose::no);
    ops::matmul(context, *gradient_, chunk, Transpose::yes, rows, Transpose::no, Accumulate::yes);
  }
}

}  // namespace convoy
