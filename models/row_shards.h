// RowShards: the two places where tp ranks meet in a layer. Between the layers a rank has its own
// rows; a matmul sees all rows of the rank's sequence shard. Under sequence parallelism own rows
// are an equal part of each segment, otherwise they are the same rows, and then only sums travel.
#pragma once

#include "core/ops.h"
#include "models/batch_view.h"
#include "models/row_gather.h"
#include "models/sharding.h"

namespace convoy {

class RowShards {
 public:
  explicit RowShards(const Sharding& sharding) : sharding_(sharding) {}

  // own [own_rows, C] of each rank -> [rows, C] in order of position, alike on all tp ranks: at
  // once, or bit by bit into what whole_for gives, which may be `own` itself.
  Tensor complete(const Context& context, const BatchView& batch, Tensor own) const;
  Tensor whole_for(const Context& context, const BatchView& batch, Tensor own) const;
  RowGather gather(const Context& context, const BatchView& batch, Tensor all, Tensor own) const {
    return {context, sharding_, batch, all, own};
  }

  // The other way: each rank has a share [rows, C] of a sum; `own` becomes the sum's own rows. The
  // share is written where share_for says, which may be `own` itself.
  Tensor share_for(const Context& context, const BatchView& batch, Tensor own) const;
  void sum_into(const Context& context, const BatchView& batch, Tensor own, Tensor share) const;
  // The same on its way: what is taken from the arena must stay until it is waited for.
  Work start_sum(const Context& context, const BatchView& batch, Tensor own, Tensor share) const;

 private:
  // The rows of tp rank `rank` inside `rows`, a segment a row.
  Tensor part_of(const BatchView& batch, const Tensor& rows, int rank) const;

  Sharding sharding_;
};

}  // namespace convoy
