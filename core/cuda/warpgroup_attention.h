// The backward pass of causal attention of whole windows in bf16 on a Hopper GPU (compute
// capability 9.0): heads of 64 channels, lengths that are multiples of 64, groups of query heads.
// The same bits in every run, and one f32 copy of dq as workspace.
#pragma once

#include <cuda_runtime.h>

#include "core/backend.h"

namespace convoy::cuda {

class Workspace;

// Whether the call was taken. log_sum_exp is that of the forward pass, f32 [B*T, Q].
bool warpgroup_attention_backward(cudaStream_t stream, Workspace& workspace, Tensor dq, Tensor dk,
                                  Tensor dv, Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out,
                                  Tensor log_sum_exp, const AttentionShape& shape);

}  // namespace convoy::cuda
