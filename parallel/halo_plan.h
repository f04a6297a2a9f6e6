// Which rows travel so that every segment has the `before` rows in front of it: its halo. Planned
// from the row ranges of all ranks, so that a halo may come from several of them where a segment is
// shorter than `before`. The same list on every rank, from which each takes its part.
#pragma once

#include <vector>

#include "parallel/row_layout.h"

namespace convoy {

// Consecutive positions that lie in one segment of `owner` and before one segment of `reader`; both
// may be the same rank.
struct HaloRun {
  int owner, reader;
  int owner_segment;
  std::int64_t owner_row;  // within the owner's segment
  int reader_segment;
  std::int64_t halo_row;  // within the halo's `before` rows, the last of which is nearest
  std::int64_t count;
};

// Of one sequence: ordered by reader, segment and position. Rows before the sequence are in none.
std::vector<HaloRun> halo_runs(const RowLayout& layout, std::int64_t before);

}  // namespace convoy
