#include "parallel/schedule/split_layers.h"

#include "core/error.h"

namespace convoy {

std::vector<LayerRange> split_layers(int layers, int stages) {
  CHECK(stages >= 1, stages, " stages");
  if (layers < stages) {
    throw Error(
        concat(layers, " layers cannot fill ", stages,
               " pipeline stages (pp x virtual_stages): set pp x virtual_stages to at most ",
               layers, ", or n_layers to at least ", stages));
  }
  const int extra = layers % stages;  // stages that hold one layer more
  const int middle = stages - 2;
  std::vector<LayerRange> ranges;
  int begin = 0;
  for (int stage = 0; stage < stages; ++stage) {
    // The order in which stages get an extra layer: 1, 2, ..., stages - 2, 0, stages - 1.
    const int turn = stage == stages - 1 ? stage : stage == 0 ? middle : stage - 1;
    const int count = layers / stages + (turn < extra ? 1 : 0);
    ranges.push_back({begin, count});
    begin += count;
  }
  return ranges;
}

}  // namespace convoy
