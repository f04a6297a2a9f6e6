// KeyShards: under context parallelism a rank has the queries of its share of each sequence and
// needs the keys and values of all of it. They are gathered over cp, and their gradients are summed
// back to the ranks whose rows they are.
#pragma once

#include "core/ops.h"
#include "models/batch_view.h"
#include "models/sharding.h"

namespace convoy {

class KeyShards {
 public:
  struct Pair {
    Tensor k, v;  // [rows of this rank or B*T, kv*K]
  };

  explicit KeyShards(const Sharding& sharding) : sharding_(sharding) {}

  // [rows, .] of each rank -> [B*T, .] in order of position; the pair itself on one rank.
  Pair whole(const Context& context, const BatchView& batch, const Pair& own) const;

  // The other way: each rank has a share [B*T, .] of the gradients, written where share_for says;
  // `own` becomes the sum's rows of this rank.
  Pair share_for(const Context& context, const BatchView& batch, const Pair& own) const;
  void sum_into(const Context& context, const BatchView& batch, const Pair& own,
                const Pair& share) const;

  // The shape of attention on this rank's rows.
  AttentionShape shape(const BatchView& batch, AttentionShape rows) const;

 private:
  bool is_whole() const { return sharding_.cp.size() == 1; }
  // What rank `rank` has of segment `segment`, of each sequence, in [B*T, C] and in [B*rows, C].
  Tensor segment_of_whole(const BatchView& batch, const Tensor& whole, int rank, int segment) const;
  Tensor segment_of_rank(const BatchView& batch, const Tensor& by_rank, int rank,
                         int segment) const;

  Sharding sharding_;
};

}  // namespace convoy
