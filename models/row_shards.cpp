#include "models/row_shards.h"

namespace convoy {
namespace {

// The part of tp rank `rank` in what lies rank by rank, a segment a row.
Tensor by_rank(const Tensor& gathered, int rank, std::int64_t own_rows, std::int64_t segments) {
  return gathered.row_range(rank * own_rows, own_rows)
      .reshape({segments, own_rows / segments * gathered.cols()});
}

}  // namespace

Tensor RowShards::part_of(const BatchView& batch, const Tensor& rows, int rank) const {
  const std::int64_t segments = batch.sequences * sharding_.segments();
  const std::int64_t part = batch.own_rows() / segments * rows.cols();
  return rows.reshape({segments, sharding_.tp.size() * part}).column_range(rank * part, part);
}

Tensor RowShards::whole_for(const Context& context, const BatchView& batch, Tensor own) const {
  return sharding_.splits_rows() ? context.take({batch.rows(), own.cols()}) : own;
}

Tensor RowShards::complete(const Context& context, const BatchView& batch, Tensor own) const {
  const Tensor all = whole_for(context, batch, own);
  const ArenaScope scope(context.arena);
  RowGather rows = gather(context, batch, all, own);
  while (!rows.next().empty()) {
  }
  return all;
}

Tensor RowShards::share_for(const Context& context, const BatchView& batch, Tensor own) const {
  return sharding_.splits_rows() ? context.take({batch.rows(), own.cols()}) : own;
}

void RowShards::sum_into(const Context& context, const BatchView& batch, Tensor own,
                         Tensor share) const {
  const ArenaScope scope(context.arena);
  start_sum(context, batch, own, share).wait();
}

Work RowShards::start_sum(const Context& context, const BatchView& batch, Tensor own,
                          Tensor share) const {
  const auto started = [this](Work work) {
    if (sharding_.overlap == Overlap::no) work.wait();
    return work;
  };
  if (!sharding_.splits_rows()) return started(sharding_.tp.all_reduce(own, Reduction::sum));
  const std::int64_t segments = batch.sequences * sharding_.segments();
  if (segments == 1) return started(sharding_.tp.reduce_scatter(own, share));
  Tensor scattered = context.take({batch.rows(), own.cols()});
  for (int rank = 0; rank < sharding_.tp.size(); ++rank) {
    ops::copy(context, by_rank(scattered, rank, batch.own_rows(), segments),
              part_of(batch, share, rank));
  }
  return started(sharding_.tp.reduce_scatter(own, scattered));
}

}  // namespace convoy
