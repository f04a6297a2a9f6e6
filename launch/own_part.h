// OwnPart: a run of elements of one parameter that this rank updates and writes to checkpoints.
#pragma once

#include <vector>

#include "models/parameters.h"

namespace convoy {

struct OwnPart {
  const Parameter* parameter;
  std::int64_t first, count;  // row-major
  Tensor value, gradient;     // [count]
  bool is_copy = false;       // another stage or tp rank has the same, counts and writes it
  bool is_shared = false;     // every rank of the gradient group has this part

  bool is_whole() const { return count == parameter->size(); }
};

// All of a store's parameters, for a lone rank.
std::vector<OwnPart> whole_parts(ParameterStore& store);

}  // namespace convoy
