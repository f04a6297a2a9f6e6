// Weight gradients are summed by chunks of rows first; the last step adds the chunks in order.
#pragma once

#include "core/cuda/elements.cuh"

namespace convoy::cuda {

constexpr int kSumColumns = 32, kSumSlices = 8;

// sums[j] = sum over chunks of partial[chunk, j]: each of kSumSlices threads adds a run of chunks,
// and the runs are added in order. Every thread of the block must call it; thread (x, 0) has the
// result of column x.
template <class W>
__device__ inline W sum_of_chunks(const W* partial, std::int64_t j, std::int64_t count,
                                  std::int64_t chunks) {
  __shared__ W runs[kSumSlices][kSumColumns];
  const std::int64_t run = ceil_div<std::int64_t>(chunks, kSumSlices);
  const std::int64_t first = threadIdx.y * run, last = min(first + run, chunks);
  W sum = 0;
  if (j < count) {
#pragma unroll 8
    for (std::int64_t chunk = first; chunk < last; ++chunk) sum += partial[chunk * count + j];
  }
  runs[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int slice = 0; slice < kSumSlices; ++slice) sum += runs[slice][threadIdx.x];
  return sum;
}

// partial [chunks, (1 + R) W D]: first ds, then du, which lie apart.
template <class W>
__global__ void add_conv_weights_kernel(W* ds, W* du, const W* partial, std::int64_t static_count,
                                        std::int64_t count, std::int64_t chunks) {
  const std::int64_t j = blockIdx.x * std::int64_t{kSumColumns} + threadIdx.x;
  const W sum = sum_of_chunks(partial, j, count, chunks);
  if (threadIdx.y != 0 || j >= count) return;
  W* target = j < static_count ? ds + j : du + (j - static_count);
  *target += sum;
}

template <class W>
void add_conv_weights(W* ds, W* du, const W* partial, std::int64_t static_count, std::int64_t count,
                      std::int64_t chunks, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(count, kSumColumns));
  add_conv_weights_kernel<W><<<blocks, dim3(kSumColumns, kSumSlices), 0, stream>>>(
      ds, du, partial, static_count, count, chunks);
}

// target[j] += sum over chunks of partial[chunk, j].
template <class W>
void add_partials(W* target, const W* partial, std::int64_t count, std::int64_t chunks,
                  cudaStream_t stream) {
  add_conv_weights<W>(target, nullptr, partial, count, count, chunks, stream);
}

}  // namespace convoy::cuda
