// Rotary positions (Su et al., arXiv 2104.09864): pair (j, j + K/2) of position p turns by
// p * theta^(-2j/K). A thread keeps the cosines and sines of its pairs for all heads of a row.
#include <cmath>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAhead = 4;  // heads loaded before the first of them is written

template <class W>
__device__ inline void turn_of(W& cosine, W& sine, std::int32_t position, double frequency) {
  const double turns = position * frequency;  // of a full circle
  const double angle = turns - rint(turns);
  if constexpr (sizeof(W) == 8) {
    sincospi(2 * angle, &sine, &cosine);
  } else {
    sincospif(static_cast<float>(2 * angle), &sine, &cosine);
  }
}

// Threads by (row, V pairs of a head).
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(Rows<T> x, const std::int32_t* positions, std::int64_t rows, int heads, int half,
                const double* frequency, double sign) {
  using W = Wide<T>;
  const std::int64_t index = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  const int packs = half / V;
  if (index >= rows * packs) return;
  const std::int64_t row = index / packs;
  const int j = static_cast<int>(index % packs) * V;
  W cosine[V], sine[V];
#pragma unroll
  for (int e = 0; e < V; ++e) {
    turn_of(cosine[e], sine[e], positions[row], frequency[j + e]);
    sine[e] *= static_cast<W>(sign);
  }
  T* const first = x.row(row) + j;
  for (int head0 = 0; head0 < heads; head0 += kAhead) {
    Pack<T, V> a[kAhead], b[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const T* pair = first + static_cast<std::int64_t>(min(head0 + k, heads - 1)) * 2 * half;
      a[k] = load_pack<V>(pair);
      b[k] = load_pack<V>(pair + half);
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      if (head0 + k >= heads) break;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const W left = widen(a[k].element[e]), right = widen(b[k].element[e]);
        a[k].element[e] = narrow<T>(left * cosine[e] - right * sine[e]);
        b[k].element[e] = narrow<T>(right * cosine[e] + left * sine[e]);
      }
      T* pair = first + static_cast<std::int64_t>(head0 + k) * 2 * half;
      store_pack(pair, a[k]);
      store_pack(pair + half, b[k]);
    }
  }
}

}  // namespace
}  // namespace cuda

void CudaBackend::rope(Tensor x, Tensor positions, std::int64_t head_width, double theta,
                       RopeDirection direction) {
  using namespace cuda;
  if (x.size() == 0) return;
  const int half = static_cast<int>(head_width / 2);
  const double* frequency = rope_frequencies(head_width, theta);
  const double sign = direction == RopeDirection::forward ? 1.0 : -1.0;
  dispatch_element(x.dtype(), [&]<class T>() {
    const auto run = [&]<int V>() {
      const std::int64_t threads = x.rows() * (half / V);
      rope_kernel<T, V><<<static_cast<unsigned>(ceil_div<std::int64_t>(threads, kThreads)),
                          kThreads, 0, stream_>>>(rows_of<T>(x), positions.data<std::int32_t>(),
                                                  x.rows(), static_cast<int>(x.cols() / head_width),
                                                  half, frequency, sign);
    };
    constexpr int V = 16 / sizeof(T);
    half % V == 0 && packable(16, {x}) ? run.template operator()<V>()
                                       : run.template operator()<1>();
  });
  check_launch();
}

// theta^(-2j/K) / (2 pi), in device memory for the life of the backend.
const double* CudaBackend::rope_frequencies(std::int64_t head_width, double theta) {
  auto& held = frequencies_[{head_width, theta}];
  if (held != nullptr) return held;
  std::vector<double> host(static_cast<std::size_t>(head_width / 2));
  for (std::size_t j = 0; j < host.size(); ++j) {
    host[j] = std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_width)) /
              (2 * M_PI);
  }
  void* data = nullptr;
  CUDA_CHECK(cudaMalloc(&data, host.size() * sizeof(double)));
  held = static_cast<double*>(data);
  CUDA_CHECK(cudaMemcpy(held, host.data(), host.size() * sizeof(double), cudaMemcpyHostToDevice));
  return held;
}

}  // namespace convoy
