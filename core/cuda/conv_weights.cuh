// The last step of a convolution's weight gradients: the chunks of rows are added in order.
#pragma once

#include "core/cuda/elements.cuh"

namespace convoy::cuda {

// partial [chunks, (1 + R) W D]: first ds, then du, which lie apart.
template <class W>
__global__ void add_conv_weights_kernel(W* ds, W* du, const W* partial, std::int64_t static_count,
                                        std::int64_t count, std::int64_t chunks) {
  const std::int64_t j = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (j >= count) return;
  W sum = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * count + j];
  W* target = j < static_count ? ds + j : du + (j - static_count);
  *target += sum;
}

template <class W>
void add_conv_weights(W* ds, W* du, const W* partial, std::int64_t static_count, std::int64_t count,
                      std::int64_t chunks, cudaStream_t stream) {
  constexpr int kThreads = 128;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(count, kThreads));
  add_conv_weights_kernel<W>
      <<<blocks, kThreads, 0, stream>>>(ds, du, partial, static_count, count, chunks);
}

}  // namespace convoy::cuda
