// Rotary positions (Su et al., arXiv 2104.09864): pair (j, j + K/2) of position p turns by
// p * theta^(-2j/K). A block keeps the cosines and sines of its rows, which all heads share.
#include <algorithm>
#include <cmath>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeld = 4;                     // packs of pairs that a thread loads at a time
constexpr std::int64_t kTableBytes = 16384;  // of shared memory, for the turns of a block's rows

template <class W>
struct Turn {
  W cosine, sine;
};

template <class W>
__device__ inline Turn<W> turn_of(std::int32_t position, double frequency, double sign) {
  const double turns = position * frequency;  // of a full circle
  const double angle = turns - rint(turns);
  Turn<W> turn;
  if constexpr (sizeof(W) == 8) {
    sincospi(2 * angle, &turn.sine, &turn.cosine);
  } else {
    sincospif(static_cast<float>(2 * angle), &turn.sine, &turn.cosine);
  }
  turn.sine *= static_cast<W>(sign);
  return turn;
}

// A block turns `block_rows` rows: its threads make the table of their turns while the first values
// are on their way, then go over all packs of V pairs.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    rope_kernel(Rows<T> x, const std::int32_t* positions, std::int64_t rows, int block_rows,
                int heads, int half, const double* frequency, double sign) {
  using W = Wide<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const table = reinterpret_cast<Turn<W>*>(shared);  // [block_rows, half]
  const std::int64_t first_row = blockIdx.x * std::int64_t{block_rows};
  const int own_rows = static_cast<int>(min(rows - first_row, std::int64_t{block_rows}));
  const int head_packs = half / V, row_packs = heads * head_packs, packs = own_rows * row_packs;
  for (int base = static_cast<int>(threadIdx.x); base - static_cast<int>(threadIdx.x) < packs;
       base += kHeld * kThreads) {
    Pack<T, V> a[kHeld], b[kHeld];
    T* place[kHeld];
    const Turn<W>* turns[kHeld];
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int pack = base + k * kThreads;
      if (pack >= packs) continue;
      const int row = pack / row_packs, of_row = pack % row_packs;
      const int j = of_row % head_packs * V;
      turns[k] = table + row * half + j;
      place[k] = x.row(first_row + row) + of_row / head_packs * 2 * half + j;
      a[k] = load_pack<V>(static_cast<const T*>(place[k]));
      b[k] = load_pack<V>(static_cast<const T*>(place[k] + half));
    }
    if (base == static_cast<int>(threadIdx.x)) {
      for (int i = base; i < own_rows * half; i += kThreads) {
        table[i] = turn_of<W>(positions[first_row + i / half], frequency[i % half], sign);
      }
      __syncthreads();
    }
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (base + k * kThreads >= packs) continue;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const Turn<W> turn = turns[k][e];
        const W left = widen(a[k].element[e]), right = widen(b[k].element[e]);
        a[k].element[e] = narrow<T>(left * turn.cosine - right * turn.sine);
        b[k].element[e] = narrow<T>(right * turn.cosine + left * turn.sine);
      }
      store_pack(place[k], a[k]);
      store_pack(place[k] + half, b[k]);
    }
  }
}

template <class T, int V>
void turn_rows(cudaStream_t stream, const Tensor& x, const Tensor& positions, int half,
               const double* frequency, double sign) {
  const std::int64_t heads = x.cols() / (2 * half);
  const auto row_bytes = static_cast<std::int64_t>(half * sizeof(Turn<Wide<T>>));
  const std::int64_t block_rows =
      std::clamp<std::int64_t>(kHeld * kThreads / (heads * (half / V)), 1,
                               std::max<std::int64_t>(kTableBytes / row_bytes, 1));
  rope_kernel<T, V><<<static_cast<unsigned>(ceil_div(x.rows(), block_rows)), kThreads,
                      static_cast<std::size_t>(block_rows * row_bytes), stream>>>(
      rows_of<T>(x), positions.data<std::int32_t>(), x.rows(), static_cast<int>(block_rows),
      static_cast<int>(heads), half, frequency, sign);
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
    constexpr int V = 16 / sizeof(T);
    half % V == 0 && packable(16, {x})
        ? turn_rows<T, V>(stream_, x, positions, half, frequency, sign)
        : turn_rows<T, 1>(stream_, x, positions, half, frequency, sign);
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
