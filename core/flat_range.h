// Parts of tensors of one dimension.
#pragma once

#include "core/tensor.h"

namespace convoy {

// Elements [begin, begin + count) of a flat tensor.
inline Tensor flat_range(const Tensor& flat, std::int64_t begin, std::int64_t count) {
  return flat.reshape({flat.size(), 1}).row_range(begin, count).reshape({count});
}

}  // namespace convoy
