// Which layers of a model a virtual stage holds.
#pragma once

#include <vector>

namespace convoy {

struct LayerRange {
  int begin, count;
  friend bool operator==(const LayerRange&, const LayerRange&) = default;
};

// Splits `layers` over `stages` in order, as evenly as possible. Where it does not come out even,
// stages in the middle get one layer more before the first one does, and the last one gets it last:
// the first also holds the embedding, the last the final norm, the head and the loss, which cost as
// much as one or several layers. Throws Error, with the remedy, where a stage would be empty.
std::vector<LayerRange> split_layers(int layers, int stages);

}  // namespace convoy
