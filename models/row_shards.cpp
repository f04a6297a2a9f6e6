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

Tensor RowShards::complete(const Context& context, const BatchView& batch, Tensor own) const {
  if (!splits_rows()) return own;
  const std::int64_t segments = batch.sequences * sharding_.segments();
  Tensor all = context.take({batch.rows(), own.cols()});
  if (segments == 1) {  // rank by rank is in order of position
    sharding_.tp.all_gather(all, own).wait();
    return all;
  }
  const ArenaScope scope(context.arena);
  Tensor gathered = context.take({batch.rows(), own.cols()});
  sharding_.tp.all_gather(gathered, own).wait();
  for (int rank = 0; rank < sharding_.tp.size(); ++rank) {
    ops::copy(context, part_of(batch, all, rank),
              by_rank(gathered, rank, batch.own_rows(), segments));
  }
  return all;
}

Tensor RowShards::share_for(const Context& context, const BatchView& batch, Tensor own) const {
  return splits_rows() ? context.take({batch.rows(), own.cols()}) : own;
}

void RowShards::sum_into(const Context& context, const BatchView& batch, Tensor own,
                         Tensor share) const {
  if (!splits_rows()) return sharding_.tp.all_reduce(own, Reduction::sum).wait();
  const std::int64_t segments = batch.sequences * sharding_.segments();
  if (segments == 1) return sharding_.tp.reduce_scatter(own, share).wait();
  const ArenaScope scope(context.arena);
  Tensor scattered = context.take({batch.rows(), own.cols()});
  for (int rank = 0; rank < sharding_.tp.size(); ++rank) {
    ops::copy(context, by_rank(scattered, rank, batch.own_rows(), segments),
              part_of(batch, share, rank));
  }
  sharding_.tp.reduce_scatter(own, scattered).wait();
}

}  // namespace convoy
