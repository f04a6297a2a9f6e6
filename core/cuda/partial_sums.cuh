// Weight gradients are summed by chunks of rows first; the last step adds the chunks in order.
#pragma once

#include "core/cuda/elements.cuh"
#include "core/cuda/launch.cuh"

namespace convoy::cuda {

constexpr int kSumLanes = 32, kSumSlices = 8;  // of a block of threads

// partial [chunks, (1 + R) W D]: first ds, then du, which lie apart.
template <class W>
struct ConvWeightSums {
  W *ds, *du;
  const W* partial;
  std::int64_t static_count, count, chunks;

  // Blocks of kSumLanes x kSumSlices threads that it takes, `Columns` columns a lane.
  template <int Columns>
  unsigned blocks() const {
    return static_cast<unsigned>(ceil_div<std::int64_t>(count, kSumLanes * Columns));
  }
};

// Adds the chunks of a block's columns to the gradient: each slice of threads adds a run of chunks,
// and the runs are added in order. Every thread of the block must call it.
template <int Columns, class W>
__device__ inline void add_chunks(const ConvWeightSums<W>& to, std::int64_t block) {
  __shared__ Pack<W, Columns> runs[kSumSlices][kSumLanes];
  const std::int64_t j = (block * kSumLanes + threadIdx.x) * Columns;
  const std::int64_t run = ceil_div<std::int64_t>(to.chunks, kSumSlices);
  const std::int64_t first = threadIdx.y * run, last = min(first + run, to.chunks);
  Pack<W, Columns> sum = {};
  if (j < to.count) {
#pragma unroll 8
    for (std::int64_t chunk = first; chunk < last; ++chunk) {
      const auto more = load_pack<Columns>(to.partial + chunk * to.count + j);
#pragma unroll
      for (int e = 0; e < Columns; ++e) sum.element[e] += more.element[e];
    }
  }
  runs[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || j >= to.count) return;
  W* target = j < to.static_count ? to.ds + j : to.du + (j - to.static_count);
#pragma unroll
  for (int e = 0; e < Columns; ++e) {
    W total = 0;
    for (int slice = 0; slice < kSumSlices; ++slice) total += runs[slice][threadIdx.x].element[e];
    target[e] += total;
  }
}

template <int Columns, class W>
__global__ void add_conv_weights_kernel(ConvWeightSums<W> sums) {
  wait_for_previous();
  add_chunks<Columns>(sums, blockIdx.x);
}

template <class W>
void add_conv_weights(W* ds, W* du, const W* partial, std::int64_t static_count, std::int64_t count,
                      std::int64_t chunks, cudaStream_t stream) {
  const ConvWeightSums<W> sums{ds, du, partial, static_count, count, chunks};
  launch_overlapped(add_conv_weights_kernel<1, W>, sums.template blocks<1>(),
                    dim3(kSumLanes, kSumSlices), 0, stream, sums);
}

// target[j] += sum over chunks of partial[chunk, j].
template <class W>
void add_partials(W* target, const W* partial, std::int64_t count, std::int64_t chunks,
                  cudaStream_t stream) {
  add_conv_weights<W>(target, nullptr, partial, count, count, chunks, stream);
}

}  // namespace convoy::cuda
