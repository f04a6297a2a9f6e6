// RMSNorm. Some lanes of a warp take a group of channels of one row and keep it in registers, so
// that a group of up to 2,048 bf16 is read once and its sum needs no barrier. They go from group to
// group, and each lane copies its packs of the next ones into slots of its own in shared memory, so
// that device memory is busy while it waits for this one's sum.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/norm_groups.cuh"
#include "core/cuda/reductions.cuh"
#include "core/cuda/resident.cuh"
#include "core/cuda/shared_memory.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPackBytes = 16;
constexpr int kMostHeld = 8;  // packs of a lane; wider groups are read again

// Groups that a lane copies ahead; none where its packs are not what cp.async moves.
template <class T, int V, int Held>
constexpr int kAhead = V * sizeof(T) != kPackBytes ? 0
                       : Held > 4                  ? 1
                                                   : 2;

template <class T, int V, int Held, bool Adds>
constexpr int kSlotBytes = (kAhead<T, V, Held> == 0 ? 0 : kAhead<T, V, Held> + 1) *
                           (Adds ? 2 : 1) * Held* kThreads* kPackBytes;

// y = norm of x, or of sum = x + b where b is given.
template <class T>
struct NormCall {
  Rows<T> y;
  Rows<Wide<T>> rstd;
  Rows<const T> x;
  Rows<T> sum;
  Rows<const T> b;
  const T* weight;
  Groups groups;
  Wide<T> epsilon;
};

template <class T, int V>
__device__ inline Pack<T, V> added(const Pack<T, V>& left, const Pack<T, V>& right) {
  const auto a = widened(left), b = widened(right);
  Pack<T, V> result;
#pragma unroll
  for (int e = 0; e < V; ++e) result.element[e] = narrow<T>(a.element[e] + b.element[e]);
  return result;
}

// A lane's packs of one group: those of x, then those of b.
template <class T, int V, int Lanes, int Held, bool Adds>
class LanePacks {
 public:
  using Packs = Pack<T, V>[Held];

  __device__ explicit LanePacks(const NormCall<T>& call)
      : call_(call), lane_(static_cast<int>(threadIdx.x) % Lanes) {}

  __device__ std::int64_t place(int k) const { return (std::int64_t{k} * Lanes + lane_) * V; }
  __device__ bool inside(int k) const { return place(k) < call_.groups.width; }

  // Also where there is no such group, so that the number of copies tells the group.
  __device__ void copy(std::uint32_t slots, std::uint32_t group) const {
    if (group < call_.groups.count) {
      const std::int64_t row = call_.groups.row(group), column = call_.groups.column(group);
#pragma unroll
      for (int k = 0; k < Held; ++k) {
        if (!inside(k)) continue;
        copy_ahead<kPackBytes>(slot(slots, k), call_.x.row(row) + column + place(k), true);
        if (Adds) {
          copy_ahead<kPackBytes>(slot(slots, Held + k), call_.b.row(row) + column + place(k), true);
        }
      }
    }
    commit_copies();
  }
  // What was copied; x + b where it adds.
  __device__ void take(Packs& held, std::uint32_t slots) const {
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      held[k] = from(slot(slots, k));
      if (Adds) held[k] = added(held[k], from(slot(slots, Held + k)));
    }
  }
  // The same out of device memory.
  __device__ void load(Packs& held, std::int64_t row, std::int64_t column) const {
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      const std::int64_t j = column + (inside(k) ? place(k) : 0);
      held[k] = load_pack<V>(call_.x.row(row) + j);
      if (Adds) held[k] = added(held[k], load_pack<V>(call_.b.row(row) + j));
    }
  }

 private:
  __device__ static std::uint32_t slot(std::uint32_t slots, int i) {
    return slots + (i * kThreads + threadIdx.x) * kPackBytes;
  }
  __device__ static Pack<T, V> from(std::uint32_t slot) {
    const uint4 bits = load_shared16(slot);
    Pack<T, V> pack;
    memcpy(&pack, &bits, sizeof pack);
    return pack;
  }

  const NormCall<T>& call_;
  int lane_;
};

template <class T, int V, int Lanes, int Held, bool Adds>
__global__ void __launch_bounds__(kThreads, Held > 4   ? 1
                                            : Held > 3 ? 2
                                            : Held > 1 ? 3
                                                       : 4)
    norm_forward_kernel(const NormCall<T> call) {
  using W = Wide<T>;
  constexpr int kGroups = kThreads / Lanes, kWarpGroups = kWarp / Lanes;
  constexpr int kCopied = kAhead<T, V, Held>, kStages = kCopied + 1;
  constexpr int kStageBytes = kSlotBytes<T, V, Held, Adds> / kStages;
  extern __shared__ uint4 slots[];
  const Groups& groups = call.groups;
  const LanePacks<T, V, Lanes, Held, Adds> packs(call);
  const int lane = static_cast<int>(threadIdx.x) % Lanes;
  const auto stage_slots = [&](int stage) { return shared_address(slots) + stage * kStageBytes; };

  wait_for_previous();
  const std::uint32_t step = gridDim.x * kGroups;
  std::uint32_t first = blockIdx.x * kGroups + threadIdx.x / kWarp * kWarpGroups;  // of the warp
  std::uint32_t group = blockIdx.x * kGroups + threadIdx.x / Lanes;
#pragma unroll
  for (int ahead = 0; ahead < kCopied; ++ahead)
    packs.copy(stage_slots(ahead), group + ahead * step);
  Pack<T, V> weights[Held];
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    weights[k] = load_pack<V>(call.weight + (packs.inside(k) ? packs.place(k) : 0));
  }
  int stage = 0;
  for (; first < groups.count; first += step, group += step) {
    // Lanes without a group keep those of their warp that have one company: they sum as whole
    // warps.
    const bool stores = group < groups.count;
    const std::uint32_t own = stores ? group : groups.count - 1;
    const std::int64_t row = groups.row(own), column = groups.column(own);
    Pack<T, V> held[Held];
    if constexpr (kCopied > 0) {
      packs.copy(stage_slots((stage + kCopied) % kStages), group + kCopied * step);
      wait_copies<kCopied>();
      packs.take(held, stage_slots(stage));
      stage = (stage + 1) % kStages;
    } else {
      packs.load(held, row, column);
    }
    W squares = 0;
    const auto add_squares = [&](const Pack<T, V>& pack) {
      const auto value = widened(pack);
#pragma unroll
      for (int e = 0; e < V; ++e) squares += value.element[e] * value.element[e];
    };
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (packs.inside(k)) add_squares(held[k]);
    }
    for (std::int64_t j = packs.place(Held); j < groups.width; j += Lanes * V) {
      auto pack = load_pack<V>(call.x.row(row) + column + j);
      if (Adds) pack = added(pack, load_pack<V>(call.b.row(row) + column + j));
      if (Adds && stores) store_pack(call.sum.row(row) + column + j, pack);
      add_squares(pack);
    }
    const W mean = lanes_sum<Lanes>(squares) / static_cast<W>(groups.width);
    if (!stores) continue;
    const W r = W(1) / sqrt(mean + call.epsilon);
    if (lane == 0) call.rstd.row(row)[groups.of_row(own)] = r;
    const auto store_normed = [&](std::int64_t j, const Pack<T, V>& pack, const Pack<T, V>& w) {
      const auto value = widened(pack), by = widened(w);
      Pack<T, V> result;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        result.element[e] = narrow<T>(value.element[e] * r * by.element[e]);
      }
      store_pack(call.y.row(row) + column + j, result);
    };
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!packs.inside(k)) continue;
      if (Adds) store_pack(call.sum.row(row) + column + packs.place(k), held[k]);
      store_normed(packs.place(k), held[k], weights[k]);
    }
    for (std::int64_t j = packs.place(Held); j < groups.width; j += Lanes * V) {
      const T* const again = Adds ? call.sum.row(row) : call.x.row(row);
      store_normed(j, load_pack<V>(again + column + j), load_pack<V>(call.weight + j));
    }
  }
}

template <class T, int V, int Lanes, int Held>
void launch(cudaStream_t stream, const NormCall<T>& call) {
  const auto run = [&]<bool Adds>() {
    const auto kernel = norm_forward_kernel<T, V, Lanes, Held, Adds>;
    constexpr int kShared = kSlotBytes<T, V, Held, Adds>;
    constexpr std::int64_t kGroups = kThreads / Lanes;
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared));
    const unsigned blocks = resident_blocks(kernel, kThreads, kShared,
                                            ceil_div<std::int64_t>(call.groups.count, kGroups));
    launch_overlapped(kernel, blocks, kThreads, kShared, stream, call);
  };
  call.b.data == nullptr ? run.template operator()<false>() : run.template operator()<true>();
}

// As few lanes as hold a group in a few packs each, so that none is idle.
template <class T, int V>
void launch(cudaStream_t stream, const NormCall<T>& call) {
  if constexpr (V > 1 && sizeof(T) < 8) {
    const std::int64_t packs = ceil_div<std::int64_t>(call.groups.width, V);
    if (packs <= 8) return launch<T, V, 8, 1>(stream, call);
    if (packs <= 16) return launch<T, V, 16, 1>(stream, call);
    if (packs <= 32) return launch<T, V, 32, 1>(stream, call);
    if (packs <= 48) return launch<T, V, 16, 3>(stream, call);
    if (packs <= 64) return launch<T, V, 32, 2>(stream, call);
    if (packs <= 96) return launch<T, V, 32, 3>(stream, call);
    if (packs <= 128) return launch<T, V, 32, 4>(stream, call);
  }
  launch<T, V, kWarp, kMostHeld>(stream, call);
}

// Packs of 16 bytes where rows and groups are made of them, else single elements.
void run(cudaStream_t stream, Tensor y, Tensor rstd, Tensor x, Tensor sum, Tensor b, Tensor weight,
         double epsilon) {
  if (x.size() == 0) return;
  const Groups groups = groups_of(x, weight.size());
  const bool packs = packable(16, {x, y, weight}) && packable(16, {sum.empty() ? x : sum}) &&
                     packable(16, {b.empty() ? x : b});
  dispatch_element(x.dtype(), [&]<class T>() {
    constexpr int V = 16 / sizeof(T);
    const NormCall<T> call{
        rows_of<T>(y),   rows_of<Wide<T>>(rstd), read_rows<T>(x), rows_of<T>(sum),
        read_rows<T>(b), data_of<T>(weight),     groups,          static_cast<Wide<T>>(epsilon)};
    groups.width % V == 0 && packs ? launch<T, V>(stream, call) : launch<T, 1>(stream, call);
  });
  check_launch();
}

}  // namespace
}  // namespace cuda

void CudaBackend::rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor weight, double epsilon) {
  cuda::run(stream_, y, rstd, x, {}, {}, weight, epsilon);
}

void CudaBackend::add_rmsnorm_forward(Tensor sum, Tensor y, Tensor rstd, Tensor a, Tensor b,
                                      Tensor weight, double epsilon) {
  cuda::run(stream_, y, rstd, a, sum, b, weight, epsilon);
}

}  // namespace convoy
