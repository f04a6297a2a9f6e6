#include "models/head.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "core/flat_range.h"
#include "models/labelled_rows.h"

namespace convoy {
namespace {

Tensor column(const Tensor& values) { return values.reshape({values.size(), 1}); }

}  // namespace

// Fixed by the vocabulary and the kind of device alone, because it decides the order in which
// gradients are added. A CPU keeps a chunk in its cache; on a GPU the weight gradient is read and
// written once a chunk, so that chunks are as large as memory likes.
std::int64_t Head::chunk_rows(const Context& context) const {
  constexpr std::int64_t kLogits = std::int64_t{1} << 18;
  constexpr std::int64_t kGpuLogits = std::int64_t{1} << 30, kGpuRows = 65536;
  const std::int64_t classes = weight_->placement.shape[0];
  if (context.backend.device() == DeviceKind::cpu) {
    return std::max<std::int64_t>(64, kLogits / classes);
  }
  const auto rows = static_cast<std::uint64_t>(kGpuLogits / classes);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::bit_floor(rows)), 64, kGpuRows);
}

// Padded classes get so low a logit that their exponential is 0.
Tensor Head::logits(const Context& context, Tensor hidden) const {
  const Tensor result = context.take({hidden.rows(), weight_->shape[0]});
  logits(context, result, hidden);
  return result;
}

void Head::logits(const Context& context, const Tensor& result, const Tensor& hidden) const {
  constexpr double kNoClass = -1e30;
  const std::int64_t classes = weight_->shape[0];
  ops::matmul(context, result, hidden, Transpose::no, weight_->value, Transpose::yes);
  const std::int64_t real =
      std::clamp<std::int64_t>(weight_->placement.shape[0] - first_class(), 0, classes);
  if (real < classes) ops::fill(context, result.column_range(real, classes - real), kNoClass);
}

Head::Chunk Head::forward(const Context& context, Tensor losses, Tensor rows,
                          Tensor targets) const {
  Chunk chunk{logits(context, rows), context.take_statistics({rows.rows(), 3})};
  const Tensor parts = context.take_statistics({sharding_.tp.size() * rows.rows(), 3});
  const Tensor own = parts.row_range(sharding_.tp.rank() * rows.rows(), rows.rows());
  ops::softmax_statistics(context, own, chunk.logits, targets, first_class());
  sharding_.tp.all_gather(parts, own).wait();
  ops::merge_softmax_statistics(context, chunk.statistics, parts);
  ops::cross_entropy_losses(context, losses, chunk.statistics, targets);
  return chunk;
}

void Head::losses(const Context& context, const BatchView& batch, Tensor losses, Tensor statistics,
                  Tensor hidden) const {
  const ArenaScope scope(context.arena);
  const LabelledRows labelled(context, batch);
  const Tensor rows = labelled.gathered(shards_.complete(context, batch, hidden));
  const Tensor own_losses = labelled.room_for(column(losses));
  const Tensor own_statistics = statistics.empty() ? Tensor() : labelled.room_for(statistics);
  const std::int64_t most = chunk_rows(context);
  for (std::int64_t begin = 0; begin < rows.rows(); begin += most) {
    const ArenaScope chunk_scope(context.arena);
    const std::int64_t count = std::min(most, rows.rows() - begin);
    const Chunk chunk =
        forward(context, flat_range(own_losses, begin, count), rows.row_range(begin, count),
                flat_range(labelled.targets(), begin, count));
    if (statistics.empty()) continue;
    ops::copy(context, own_statistics.row_range(begin, count), chunk.statistics);
  }
  labelled.spread(column(losses), own_losses);
  if (!statistics.empty()) labelled.spread(statistics, own_statistics);
}

// Of a chunk: losses are set; the gradient with respect to the logits. Where all classes are here
// the logits need not be read for their sums and again for their gradient.
Tensor Head::losses_and_dlogits(const Context& context, Tensor losses, Tensor rows, Tensor targets,
                                const Scalar& scale) const {
  if (sharding_.tp.size() == 1) {
    const Tensor values = context.take({rows.rows(), weight_->shape[0]});
    const Tensor statistics = context.take_statistics({rows.rows(), 3});
    static const char* const asked = std::getenv("CONVOY_HEAD_ROWS");
    const std::int64_t most = asked == nullptr ? rows.rows() : std::atoll(asked);
    for (std::int64_t begin = 0; begin < rows.rows(); begin += most) {
      const std::int64_t count = std::min(most, rows.rows() - begin);
      const Tensor part = values.row_range(begin, count);
      logits(context, part, rows.row_range(begin, count));
      ops::cross_entropy(context, flat_range(losses, begin, count),
                         statistics.row_range(begin, count), part,
                         flat_range(targets, begin, count), scale);
    }
    return values;
  }
  const Chunk chunk = forward(context, losses, rows, targets);
  ops::cross_entropy_backward(context, chunk.logits, chunk.statistics, targets, first_class(),
                              scale);
  return chunk.logits;
}

void Head::losses_and_gradients(const Context& context, const BatchView& batch, Tensor losses,
                                Tensor dhidden, Tensor hidden, const Scalar& scale) const {
  const ArenaScope scope(context.arena);
  const LabelledRows labelled(context, batch);
  const Tensor all = labelled.gathered(shards_.complete(context, batch, hidden));
  const Tensor share = shards_.share_for(context, batch, dhidden);
  const Tensor dall = labelled.room_for(share), own_losses = labelled.room_for(column(losses));
  const std::int64_t most = chunk_rows(context);
  for (std::int64_t begin = 0; begin < all.rows(); begin += most) {
    const ArenaScope chunk_scope(context.arena);
    const std::int64_t count = std::min(most, all.rows() - begin);
    const Tensor rows = all.row_range(begin, count);
    const Tensor dlogits = losses_and_dlogits(context, flat_range(own_losses, begin, count), rows,
                                              flat_range(labelled.targets(), begin, count), scale);
    ops::matmul(context, dall.row_range(begin, count), dlogits, Transpose::no, weight_->value,
                Transpose::no);
    ops::matmul(context, *gradient_, dlogits, Transpose::yes, rows, Transpose::no, Accumulate::yes);
  }
  labelled.spread(share, dall);
  labelled.spread(column(losses), own_losses);
  shards_.sum_into(context, batch, dhidden, share);
}

}  // namespace convoy
