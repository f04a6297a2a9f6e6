#include "core/cuda/conv.h"

namespace convoy::cuda {
bool direct_conv_forward(const ConvCall&, Tensor, Tensor) { return false; }
bool direct_conv_backward(const ConvCall&, const ConvGradients&, Tensor, Tensor, ConvWants) {
  return false;
}
}  // namespace convoy::cuda
