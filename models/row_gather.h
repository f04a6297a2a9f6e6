// RowGather: the rows of all tp ranks, arriving piece by piece. The own rows are there at once; the
// others travel in chunks, all of them posted at the start, so that a layer computes on what has
// come while the rest is under way. How rows are cut depends on shapes alone, never on when
// something arrives: the bits are the same however fast the link is.
#pragma once

#include <vector>

#include "core/ops.h"
#include "models/batch_view.h"
#include "models/sharding.h"

namespace convoy {

class RowGather {
 public:
  // Consecutive rows of the whole; of one segment, where rows are split.
  struct Run {
    std::int64_t begin, count;
    std::int64_t segment_begin;  // where the segment starts

    Tensor of(const Tensor& rows) const { return rows.row_range(begin, count); }
  };
  using Runs = std::vector<Run>;

  // all [rows, C] is filled from own [own_rows, C] of each tp rank; where the rows are not split it
  // is `own`. Memory for what travels comes from the arena and must stay until the last next().
  RowGather(const Context& context, const Sharding& sharding, const BatchView& batch, Tensor all,
            Tensor own);

  // The rows that are there now and were not before: first the own rows, then, waited for, those of
  // chunk after chunk. Empty at the end.
  Runs next();

 private:
  struct Chunk {
    std::int64_t begin, count;  // of a rank's own rows
    Tensor gathered;            // [tp * count, C], rank by rank
    Work work;
  };

  void post(Tensor own);
  // Copies own rows [begin, begin + count) of tp rank `rank` to where they belong in the whole.
  void place(Runs& runs, int rank, std::int64_t begin, Tensor rows) const;

  Context context_;
  Sharding sharding_;
  std::int64_t own_rows_, part_;  // of this rank: all, and of one segment
  Tensor all_;
  Runs own_;
  std::vector<Chunk> chunks_;
  std::size_t turn_ = 0;
};

}  // namespace convoy
