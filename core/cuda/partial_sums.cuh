// Weight gradients are summed by chunks of rows first, and the chunks then added in order.
#pragma once

#include "core/cuda/elements.cuh"

namespace convoy::cuda {

// target[j] += sum over chunks, in order, of partial[chunk, j].
template <class W>
__global__ void add_partials_kernel(W* target, const W* partial, std::int64_t count,
                                    std::int64_t chunks) {
  const std::int64_t j = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (j >= count) return;
  W sum = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * count + j];
  target[j] += sum;
}

template <class W>
void add_partials(W* target, const W* partial, std::int64_t count, std::int64_t chunks,
                  cudaStream_t stream) {
  constexpr int kThreads = 128;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(count, kThreads));
  add_partials_kernel<W><<<blocks, kThreads, 0, stream>>>(target, partial, count, chunks);
}

}  // namespace convoy::cuda
