// Rotary positions (Su et al., arXiv 2104.09864): pair (j, j + K/2) of position p turns by
// p * theta^(-2j/K). A thread has V pairs of a head and keeps their turns for all heads of a row.
// It copies the pairs of the next heads, and of the rows it will come to, into slots of its own in
// shared memory, so that device memory is busy while it turns and stores; no thread waits for
// another.
#include <cmath>
#include <cstdlib>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/resident.cuh"
#include "core/cuda/shared_memory.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPackBytes = 16;

// The turns of V pairs.
template <class W, int V>
struct Turns {
  W cosine[V], sine[V];

  __device__ Turns(std::int32_t position, const double* frequency, double sign) {
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const double turns = position * frequency[e];  // of a full circle
      const double angle = turns - rint(turns);
      if constexpr (sizeof(W) == 8) {
        sincospi(2 * angle, &sine[e], &cosine[e]);
      } else {
        sincospif(static_cast<float>(2 * angle), &sine[e], &cosine[e]);
      }
      sine[e] *= static_cast<W>(sign);
    }
  }

  template <class T>
  __device__ void turn(Pack<T, V>& left, Pack<T, V>& right) const {
    const auto a = widened(left), b = widened(right);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      left.element[e] = narrow<T>(a.element[e] * cosine[e] - b.element[e] * sine[e]);
      right.element[e] = narrow<T>(b.element[e] * cosine[e] + a.element[e] * sine[e]);
    }
  }
};

// What a launch turns. A unit is V pairs of all heads of a row.
template <class T, int V>
struct RopeCall {
  Rows<T> x;
  const std::int32_t* positions;
  std::uint32_t units;
  int heads, half;
  const double* frequency;
  double sign;

  __device__ std::uint32_t row(std::uint32_t unit) const {
    return unit / static_cast<std::uint32_t>(half / V);
  }
  __device__ int pair(std::uint32_t unit) const {
    return static_cast<int>(unit % static_cast<std::uint32_t>(half / V)) * V;
  }
  __device__ T* place(std::uint32_t unit) const { return x.row(row(unit)) + pair(unit); }
  __device__ Turns<Wide<T>, V> turns(std::uint32_t unit) const {
    return {positions[row(unit)], frequency + pair(unit), sign};
  }
};

// Copies into a thread's slots what it will turn, in the order in which it will.
template <class T, int V>
class PairsAhead {
 public:
  __device__ PairsAhead(const RopeCall<T, V>& call, std::uint32_t unit, std::uint32_t step)
      : call_(call), unit_(unit), step_(step), place_(call.place(unit)) {}

  __device__ void copy_next(std::uint32_t slot) {
    if (unit_ < call_.units) {
      copy_ahead<kPackBytes>(slot, place_, true);
      copy_ahead<kPackBytes>(slot + kThreads * kPackBytes, place_ + call_.half, true);
      place_ += 2 * call_.half;
      if (++head_ == call_.heads) {
        head_ = 0;
        unit_ += step_;
        place_ = call_.place(unit_);
      }
    }
    commit_copies();  // also where there is none, so that their number tells the head
  }

 private:
  const RopeCall<T, V>& call_;
  std::uint32_t unit_, step_;
  const T* place_;
  int head_ = 0;
};

template <class T, int V, int Ahead>
__global__ void __launch_bounds__(kThreads, 4) rope_ahead_kernel(const RopeCall<T, V> call) {
  constexpr int kStages = Ahead + 1;
  extern __shared__ uint4 slots[];  // [stage, side, thread]
  wait_for_previous();
  const std::uint32_t step = gridDim.x * kThreads;
  std::uint32_t unit = blockIdx.x * kThreads + threadIdx.x;
  if (unit >= call.units) return;
  PairsAhead<T, V> pairs(call, unit, step);
  const auto slot = [&](int stage) {
    return shared_address(slots) + (stage * 2 * kThreads + threadIdx.x) * kPackBytes;
  };
#pragma unroll
  for (int k = 0; k < Ahead; ++k) pairs.copy_next(slot(k));
  int stage = 0;
  for (; unit < call.units; unit += step) {
    T* place = call.place(unit);
    const auto turns = call.turns(unit);
    for (int head = 0; head < call.heads; ++head, place += 2 * call.half) {
      pairs.copy_next(slot((stage + Ahead) % kStages));
      wait_copies<Ahead>();
      const uint4 left_bits = load_shared16(slot(stage)),
                  right_bits = load_shared16(slot(stage) + kThreads * kPackBytes);
      Pack<T, V> left, right;
      memcpy(&left, &left_bits, sizeof left);
      memcpy(&right, &right_bits, sizeof right);
      turns.turn(left, right);
      store_pack(place, left);
      store_pack(place + call.half, right);
      stage = (stage + 1) % kStages;
    }
  }
}

// Where rows or heads are not made of packs of 16 bytes.
template <class T>
__global__ void __launch_bounds__(kThreads) rope_kernel(const RopeCall<T, 1> call) {
  wait_for_previous();
  const std::uint32_t unit = blockIdx.x * kThreads + threadIdx.x;
  if (unit >= call.units) return;
  T* place = call.place(unit);
  const auto turns = call.turns(unit);
  for (int head = 0; head < call.heads; ++head, place += 2 * call.half) {
    auto left = load_pack<1>(static_cast<const T*>(place)),
         right = load_pack<1>(static_cast<const T*>(place + call.half));
    turns.turn(left, right);
    store_pack(place, left);
    store_pack(place + call.half, right);
  }
}

template <class T, int V, int Ahead>
void turn_ahead(cudaStream_t stream, const RopeCall<T, V>& call) {
  const auto kernel = rope_ahead_kernel<T, V, Ahead>;
  constexpr int kShared = (Ahead + 1) * 2 * kThreads * kPackBytes;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
  const unsigned blocks =
      resident_blocks(kernel, kThreads, kShared, ceil_div<std::int64_t>(call.units, kThreads));
  launch_overlapped(kernel, blocks, kThreads, kShared, stream, call);
}

template <class T, int V>
void turn_rows(cudaStream_t stream, const Tensor& x, const Tensor& positions, int half,
               const double* frequency, double sign) {
  const std::int64_t units = x.rows() * (half / V);
  CHECK(units < std::int64_t{1} << 31, "rope of ", x.rows(), " rows and ", half, " pairs a head");
  const RopeCall<T, V> call{rows_of<T>(x),
                            positions.data<std::int32_t>(),
                            static_cast<std::uint32_t>(units),
                            static_cast<int>(x.cols() / (2 * half)),
                            half,
                            frequency,
                            sign};
  if constexpr (V == 1) {
    launch_overlapped(rope_kernel<T>,
                      static_cast<unsigned>(ceil_div<std::int64_t>(units, kThreads)), kThreads, 0,
                      stream, call);
  } else {
    static const char* const variant = std::getenv("CONVOY_ROPE");
    if (variant != nullptr) return turn_ahead<T, V, 6>(stream, call);
    turn_ahead<T, V, 3>(stream, call);
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
    constexpr int V = kPackBytes / sizeof(T);
    half % V == 0 && packable(kPackBytes, {x})
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
  cuda::copy_to_device(held, host.data(), host.size() * sizeof(double), stream_);
  return held;
}

}  // namespace convoy
