// Our own matmul: the reference, the one for f64, and the one of invariant mode. The bits of an
// output element depend on its row of op(a), its column of op(b) and the depth alone: along the
// depth, blocks of fixed length are summed in order, whatever the number of rows or columns.
#pragma once

#include "core/backend.h"
#include "core/cpu/scratch.h"

namespace convoy::cpu {

void fixed_order_matmul(Scratch& scratch, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                        Transpose transpose_b, Accumulate accumulate);

}  // namespace convoy::cpu
