// The matmul of invariant mode: each element is one sum along the depth in its natural order, so
// the bits of a row of c depend on that row of a (and b) alone, whatever the other rows are.
#pragma once

#include <cuda_runtime.h>

#include "core/backend.h"

namespace convoy::cuda {

void fixed_order_matmul(cudaStream_t stream, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                        Transpose transpose_b, Accumulate accumulate);

}  // namespace convoy::cuda
