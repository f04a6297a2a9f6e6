// The dynamic convolution on a GPU. Fast kernels say by their return value whether they took a
// call; what none of them takes (a halo, odd sizes or strides, f64) the general kernels do.
#pragma once

#include <cuda_runtime.h>

#include "core/backend.h"
#include "core/cuda/cuda_backend.h"

namespace convoy::cuda {

struct ConvCall {
  cudaStream_t stream;
  Workspace& workspace;
  const ConvFilters& filters;
  const ConvShape& shape;
  const ConvRows& rows;
};

// What of the backward pass is wanted.
enum class ConvWants : std::uint8_t { input, weight, both };

// Static and head-wise filters: a thread walks down the rows of its channels.
bool direct_conv_forward(const ConvCall& call, Tensor y, Tensor x);
bool direct_conv_backward(const ConvCall& call, const ConvGradients& gradients, Tensor dy, Tensor x,
                          ConvWants wants);

// On the matrix units, in bf16: low-rank filters of up to 16 ranks and 4 taps; forward, also
// head-wise ones of 4 taps.
bool mma_conv_forward(const ConvCall& call, Tensor y, Tensor x);
bool mma_conv_forward_add(const ConvCall& call, Tensor sum, Tensor x, Tensor addend);
bool mma_conv_backward(const ConvCall& call, const ConvGradients& gradients, Tensor dy, Tensor x,
                       ConvWants wants);

}  // namespace convoy::cuda
