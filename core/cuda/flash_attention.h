// Attention of whole windows without document boundaries through a library, where one is there.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <string>

#include "core/backend.h"

namespace convoy::cuda {

class Workspace;

class FlashAttention {
 public:
  virtual ~FlashAttention() = default;
  // Whether it takes this: bf16, head widths and strides it knows. document_start must be 0
  // everywhere.
  virtual bool takes_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                             const AttentionShape& shape) = 0;
  virtual void forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                       const AttentionShape& shape) = 0;
  virtual bool takes_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k,
                              Tensor v, Tensor out, Tensor log_sum_exp,
                              const AttentionShape& shape) = 0;
  virtual void backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k, Tensor v,
                        Tensor out, Tensor log_sum_exp, const AttentionShape& shape) = 0;
};

// to [B, Q, T] = log_sum_exp [B*T, Q].
void pack_statistics(cudaStream_t stream, float* to, const Tensor& log_sum_exp,
                     const AttentionShape& shape);

// Null where the program was built without such a library.
std::unique_ptr<FlashAttention> make_flash_attention(cudaStream_t stream, Workspace& workspace,
                                                     Deterministic deterministic);
std::string flash_attention_library();  // "cuDNN 9.19.0", or "none"

}  // namespace convoy::cuda
