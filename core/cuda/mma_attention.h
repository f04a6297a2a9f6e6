// Flash attention in bf16 on the matrix units (Dao, arXiv 2307.08691): head widths 32, 64, 128,
// documents, groups of query heads. The backward pass makes the scores twice, once for dq and once
// for dk and dv, so that no block adds to another's sums and the bits are the same in every run.
#pragma once

#include <cuda_runtime.h>

#include "core/backend.h"

namespace convoy::cuda {

// Whether the call was taken.
bool mma_attention_forward(cudaStream_t stream, Tensor out, Tensor log_sum_exp, Tensor q, Tensor k,
                           Tensor v, Tensor document_start, const AttentionShape& shape);
// delta [rows, heads] = dout . out.
bool mma_attention_backward(cudaStream_t stream, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                            Tensor q, Tensor k, Tensor v, Tensor log_sum_exp, const float* delta,
                            Tensor document_start, const AttentionShape& shape);

}  // namespace convoy::cuda
