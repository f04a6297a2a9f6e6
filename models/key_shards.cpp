#include "models/key_shards.h"

namespace convoy {
namespace {

// k and v side by side, as they travel.
KeyShards::Pair halves(const Tensor& both) {
  const std::int64_t width = both.cols() / 2;
  return {both.column_range(0, width), both.column_range(width, width)};
}

}  // namespace

Tensor KeyShards::segment_of_whole(const BatchView& batch, const Tensor& whole, int rank,
                                   int segment) const {
  const RowLayout layout = sharding_.all_rows(batch.length * sharding_.cp.size());
  return whole.reshape({batch.sequences, layout.length * whole.cols()})
      .column_range(layout.begin_of(rank, segment) * whole.cols(),
                    layout.segment_length() * whole.cols());
}

Tensor KeyShards::segment_of_rank(const BatchView& batch, const Tensor& by_rank, int rank,
                                  int segment) const {
  const RowLayout layout = sharding_.all_rows(batch.length * sharding_.cp.size());
  const std::int64_t width = layout.segment_length() * by_rank.cols();
  return by_rank.row_range(rank * batch.rows(), batch.rows())
      .reshape({batch.sequences, batch.length * by_rank.cols()})
      .column_range(segment * width, width);
}

KeyShards::Pair KeyShards::whole(const Context& context, const BatchView& batch,
                                 const Pair& own) const {
  if (is_whole()) return own;
  const int ranks = sharding_.cp.size();
  Tensor whole = context.take({ranks * batch.rows(), 2 * own.k.cols()});
  const ArenaScope scope(context.arena);
  Tensor mine = context.take({batch.rows(), whole.cols()});
  Tensor gathered = context.take({whole.rows(), whole.cols()});
  ops::copy(context, halves(mine).k, own.k);
  ops::copy(context, halves(mine).v, own.v);
  sharding_.cp.all_gather(gathered, mine).wait();
  for (int rank = 0; rank < ranks; ++rank) {
    for (int segment = 0; segment < sharding_.segments(); ++segment) {
      ops::copy(context, segment_of_whole(batch, whole, rank, segment),
                segment_of_rank(batch, gathered, rank, segment));
    }
  }
  return halves(whole);
}

KeyShards::Pair KeyShards::share_for(const Context& context, const BatchView& batch,
                                     const Pair& own) const {
  if (is_whole()) return own;
  const std::int64_t rows = sharding_.cp.size() * batch.rows();
  return halves(context.take({rows, 2 * own.k.cols()}));
}

void KeyShards::sum_into(const Context& context, const BatchView& batch, const Pair& own,
                         const Pair& share) const {
  if (is_whole()) return;
  const ArenaScope scope(context.arena);
  const Tensor whole(share.k.data(), share.k.dtype(), share.k.device(),
                     {share.k.rows(), 2 * share.k.cols()});  // of which share_for gave the halves
  Tensor scattered = context.take({whole.rows(), whole.cols()});
  Tensor mine = context.take({batch.rows(), whole.cols()});
  for (int rank = 0; rank < sharding_.cp.size(); ++rank) {
    for (int segment = 0; segment < sharding_.segments(); ++segment) {
      ops::copy(context, segment_of_rank(batch, scattered, rank, segment),
                segment_of_whole(batch, whole, rank, segment));
    }
  }
  sharding_.cp.reduce_scatter(mine, scattered).wait();
  ops::copy(context, own.k, halves(mine).k);
  ops::copy(context, own.v, halves(mine).v);
}

AttentionShape KeyShards::shape(const BatchView& batch, AttentionShape rows) const {
  const RowLayout layout = sharding_.all_rows(batch.length * sharding_.cp.size());
  rows.key_length = layout.length;
  rows.runs = layout.segments();
  for (int segment = 0; segment < layout.segments(); ++segment) {
    rows.run_begin[static_cast<std::size_t>(segment)] =
        layout.begin_of(sharding_.cp.rank(), segment);
  }
  return rows;
}

}  // namespace convoy
