// Sums and maxima over a warp or a block in a fixed order, so that a kernel gives the same bits in
// every run. Every thread gets the result.
#pragma once

#include <cuda_runtime.h>

namespace convoy::cuda {

constexpr int kWarp = 32;

// Over each `Lanes` neighbouring lanes of a warp, all of whose lanes take part.
template <int Lanes, class T>
__device__ inline T lanes_sum(T x) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}
template <class T>
__device__ inline T warp_sum(T x) {
  return lanes_sum<kWarp>(x);
}

template <class T>
__device__ inline T warp_max(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(~0u, x, offset);
    x = other > x ? other : x;
  }
  return x;
}

// `shared` holds one value a warp and may be used again after the call.
template <class T>
__device__ inline T block_sum(T x, T* shared) {
  x = warp_sum(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  T total = 0;
  for (int warp = 0; warp < blockDim.x / kWarp; ++warp) total += shared[warp];
  __syncthreads();
  return total;
}

template <class T>
__device__ inline T block_max(T x, T* shared) {
  x = warp_max(x);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  T best = shared[0];
  for (int warp = 1; warp < blockDim.x / kWarp; ++warp)
    best = shared[warp] > best ? shared[warp] : best;
  __syncthreads();
  return best;
}

}  // namespace convoy::cuda
