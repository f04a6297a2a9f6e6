// OwnPart: a run of elements of one parameter that this rank updates and writes to checkpoints.
#pragma once

#include <vector>

#include "models/parameters.h"

namespace convoy {

struct OwnPart {
  const Parameter* parameter;
  std::int64_t first, count;  // row-major
  Tensor value, gradient;     // [count]
  Tensor master = {};         // [count] in f32, where the values are its rounding; or absent
  bool is_copy = false;       // another stage or tp rank has the same, counts and writes it
  bool is_shared = false;     // every rank of the gradient group has this part

  const Tensor& exact() const { return master.empty() ? value : master; }
  bool is_whole() const { return count == parameter->size(); }
};

// All of a store's parameters, for a lone rank.
std::vector<OwnPart> whole_parts(ParameterStore& store);

}  // namespace convoy
