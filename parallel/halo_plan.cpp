#include "parallel/halo_plan.h"

#include <algorithm>

namespace convoy {

std::vector<HaloRun> halo_runs(const RowLayout& layout, std::int64_t before) {
  std::vector<HaloRun> runs;
  for (int reader = 0; reader < layout.ranks(); ++reader) {
    for (int segment = 0; segment < layout.segments(); ++segment) {
      const std::int64_t end = layout.begin_of(reader, segment);
      for (std::int64_t position = std::max<std::int64_t>(end - before, 0); position < end;) {
        const RowLayout::Place at = layout.place_of(position);
        const std::int64_t count = std::min(end - position, layout.segment_length() - at.row);
        runs.push_back(
            {at.rank, reader, at.segment, at.row, segment, position - (end - before), count});
        position += count;
      }
    }
  }
  return runs;
}

}  // namespace convoy
