// Cross-entropy and its gradient with the logits read once. A row lies in the shared memory of a
// cluster of blocks between its two passes: maximum and sum of exponentials, then the gradient,
// which overwrites it. The blocks of a cluster have a run of columns each; their warps send each
// other their two numbers. A cluster goes from row to row. Each thread copies ahead into slots of
// its own what it will need of the next row, and between a row's passes comes the first pass of the
// next one, so that memory and arithmetic are busy while the letters are on their way.
#include <cooperative_groups.h>

#include "core/cuda/cluster_messages.cuh"
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/kernel_scalar.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/reductions.cuh"
#include "core/cuda/shared_memory.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kMostThreads = 512;
constexpr int kMostBlocks = 8;  // of a cluster; what every card that has clusters can do
constexpr int kMostHeld = 4;    // packs of a thread; more do not fit beside two blocks a processor
constexpr int kRowsAhead = 1;
constexpr int kStages = kRowsAhead + 2;  // also the row before, of which the second pass is due
constexpr int kPackBytes = 16;
[[maybe_unused]] constexpr int kMostWarps = kMostThreads / kWarp;

template <class W>
struct PartOfSoftmax {
  W largest, sum;  // of exp(x - largest)
};

// 2^x for x <= 0 in one instruction; relative error below 2^-22, 0 below 2^-126.
[[maybe_unused]] __device__ inline float falling_power(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
[[maybe_unused]] constexpr float kLog2E = 1.44269504088896341f;

// e^(x - largest) for x <= largest. The exponent of an f32 is exact to |x - largest| 2^-23; that of
// a bf16, which has an error of |x| 2^-9 itself, to |largest| 2^-23.
template <class T>
class ExponentialBelow {
 public:
  __device__ explicit ExponentialBelow(float largest)
      : offset_(std::is_same_v<T, bf16> ? -largest * kLog2E : largest) {}
  __device__ float operator()(float x) const {
    if constexpr (std::is_same_v<T, bf16>) return falling_power(fmaf(x, kLog2E, offset_));
    return falling_power((x - offset_) * kLog2E);
  }

 private:
  float offset_;
};

template <class T, int V>
__device__ inline Wide<T> largest_of(const Pack<T, V>& pack) {
  if constexpr (std::is_same_v<T, bf16>) {
    __nv_bfloat162 pair[V / 2];
    memcpy(pair, &pack, sizeof pair);
#pragma unroll
    for (int i = 1; i < V / 2; ++i) pair[0] = __hmax2(pair[0], pair[i]);
    return max(widen(pair[0].x), widen(pair[0].y));
  } else {
    Wide<T> largest = widen(pack.element[0]);
#pragma unroll
    for (int e = 1; e < V; ++e) largest = max(largest, widen(pack.element[e]));
    return largest;
  }
}

// Every thread gets the whole's numbers, added in a fixed order.
template <class W>
__device__ PartOfSoftmax<W> merge(const PartOfSoftmax<W>* parts, int count) {
  constexpr int kOfLane = kMostBlocks * kMostWarps / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  PartOfSoftmax<W> own[kOfLane];
  W largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    const int part = i * kWarp + lane;
    own[i] = part < count ? parts[part] : PartOfSoftmax<W>{-INFINITY, 0};
    largest = max(largest, own[i].largest);
  }
  largest = warp_max(largest);
  W sum = 0;
#pragma unroll
  for (int i = 0; i < kOfLane; ++i) {
    if (own[i].sum != W(0)) sum += own[i].sum * falling_power((own[i].largest - largest) * kLog2E);
  }
  return {largest, warp_sum(sum)};
}

template <class T>
struct LossCall {
  double* losses;
  Rows<Wide<T>> statistics;
  Rows<T> logits;
  const std::int32_t* targets;
  std::int64_t rows;
  int columns, packs_of_block;
  KernelScalar<Wide<T>> scale;
};

// A thread's part of the rows of its cluster.
template <class T, int V, int Held>
class RowPart {
 public:
  using W = Wide<T>;

  __device__ RowPart(const LossCall<T>& call, const uint4* slots, int block)
      : call_(call),
        slots_(slots),
        own_slots_(kept_shared_address(slots + threadIdx.x)),
        scale_(call.scale.read()),
        threads_(static_cast<int>(blockDim.x)),
        thread_(static_cast<int>(threadIdx.x)),
        first_column_(block * call.packs_of_block * V),
        packs_(max(min(call.packs_of_block, call.columns / V - block * call.packs_of_block), 0)) {}

  // Also where there is no such row, so that the number of copies tells the row.
  __device__ void copy(std::int64_t row, int stage) const {
    if (row < call_.rows) {
      const T* const begin = call_.logits.row(row) + first_column_;
#pragma unroll
      for (int k = 0; k < Held; ++k) {
        if (has(k)) copy_ahead<kPackBytes>(slot(stage, k), begin + pack_of(k) * V, true);
      }
    }
    commit_copies();
  }

  // Of the warp.
  __device__ PartOfSoftmax<W> sums(int stage) const {
    Pack<T, V> held[Held];
    W largest = -INFINITY;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!has(k)) continue;
      held[k] = at(stage, k);
      largest = max(largest, largest_of(held[k]));
    }
    largest = warp_max(largest);
    const ExponentialBelow<T> exponential(largest);
    W sum = 0;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!has(k)) continue;
      const auto logits = widened(held[k]);
#pragma unroll
      for (int e = 0; e < V; ++e) sum += exponential(logits.element[e]);
    }
    return {largest, warp_sum(sum)};
  }

  // The row's gradient in the place of its logits; loss and statistics by the thread that has the
  // target, or by the first where nothing counts.
  __device__ void finish(std::int64_t row, int stage, std::int32_t target,
                         const PartOfSoftmax<W>& whole) const {
    const bool counts = target >= 0;
    const W factor = scale_ / whole.sum;
    const ExponentialBelow<T> exponential(whole.largest);
    const int own_target = counts ? target - first_column_ : -1;
    int with_target = -1;
    T* const begin = call_.logits.row(row) + first_column_;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!has(k)) continue;
      if (own_target >= 0 && own_target / V == pack_of(k)) with_target = k;
      const auto logits = widened(at(stage, k));
      Pack<T, V> gradient;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        gradient.element[e] = narrow<T>(exponential(logits.element[e]) * factor);
      }
      uint4 bits = {};
      if (counts) memcpy(&bits, &gradient, sizeof bits);
      __stcs(reinterpret_cast<uint4*>(begin + pack_of(k) * V), bits);
    }
    if (with_target >= 0) {
      const uint4* const pack = slots_ + (stage * Held + with_target) * threads_ + thread_;
      const W logit = widen(reinterpret_cast<const T*>(pack)[own_target % V]);
      begin[own_target] = narrow<T>(exponential(logit) * factor - scale_);
      publish(row, true, whole, logit);
    } else if (!(counts && target < call_.columns) && first_column_ == 0 && thread_ == 0) {
      publish(row, counts, whole, 0);
    }
  }

 private:
  __device__ int pack_of(int k) const { return k * threads_ + thread_; }
  __device__ bool has(int k) const { return pack_of(k) < packs_; }
  __device__ std::uint32_t slot(int stage, int k) const {
    return own_slots_ + static_cast<std::uint32_t>((stage * Held + k) * threads_ * kPackBytes);
  }
  __device__ Pack<T, V> at(int stage, int k) const {
    const uint4 bits = load_shared16(slot(stage, k));
    Pack<T, V> pack;
    memcpy(&pack, &bits, sizeof pack);
    return pack;
  }
  __device__ void publish(std::int64_t row, bool counts, const PartOfSoftmax<W>& whole,
                          W target_logit) const {
    W* const out = call_.statistics.row(row);
    out[0] = whole.largest, out[1] = whole.sum, out[2] = target_logit;
    call_.losses[row] = counts ? static_cast<double>(log(whole.sum)) +
                                     static_cast<double>(whole.largest) -
                                     static_cast<double>(target_logit)
                               : 0.0;
  }

  const LossCall<T>& call_;
  const uint4* slots_;  // [stage, held, thread]
  std::uint32_t own_slots_;
  W scale_;
  int threads_, thread_, first_column_, packs_;
};

// Of row i the first pass comes in turn i, the second in turn i + 1, while the letters of the next
// row's first pass are on their way.
template <class T, int V, int Held>
__global__ void __launch_bounds__(kMostThreads, 2) cross_entropy_kernel(const LossCall<T> call) {
#if __CUDA_ARCH__ >= 900
  using W = Wide<T>;
  extern __shared__ uint4 slots[];
  __shared__ PartOfSoftmax<W> parts[2][kMostBlocks * kMostWarps];
  __shared__ LetterBox boxes[2];
  const auto cluster = cooperative_groups::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int block = static_cast<int>(cluster.block_rank());
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  const std::int64_t first = blockIdx.x / blocks, step = gridDim.x / blocks;

  wait_for_previous();
  const RowPart<T, V, Held> part(call, slots, block);
  for (int ahead = 0; ahead < kRowsAhead; ++ahead) part.copy(first + ahead * step, ahead);
  if (threadIdx.x == 0) open_letter_box(&boxes[0]), open_letter_box(&boxes[1]);
  if (blocks > 1) cluster.sync();  // all blocks are there to be written to
  int stage = 0, parity = 0, odd_turn = 0;
  std::int32_t target = 0;
  for (std::int64_t row = first; row - step < call.rows; row += step) {
    const bool first_turn = row == first;
    PartOfSoftmax<W> whole;
    if (!first_turn) whole = merge(parts[parity ^ 1], blocks * warps);
    std::int32_t next_target = 0;
    if (row < call.rows) {
      next_target = call.targets[row];
      part.copy(row + kRowsAhead * step, (stage + kRowsAhead) % kStages);
      wait_copies<kRowsAhead>();
      const PartOfSoftmax<W> own = part.sums(stage);
      PartOfSoftmax<W>* const place = &parts[parity][block * warps + warp];
      if (blocks > 1) {
        if (threadIdx.x == 0) {
          expect_letters(&boxes[parity], blocks * warps * static_cast<int>(sizeof own));
        }
        if (lane < blocks) send_letter(place, &boxes[parity], lane, own);
      } else if (lane < blocks) {
        *cluster.map_shared_rank(place, lane) = own;
      }
    }
    if (!first_turn) part.finish(row - step, (stage + kStages - 1) % kStages, target, whole);
    if (blocks == 1) {
      __syncthreads();
    } else if (row < call.rows) {
      wait_for_letters(&boxes[parity], odd_turn);
    }
    target = next_target;
    stage = (stage + 1) % kStages, odd_turn ^= parity, parity ^= 1;
  }
#endif
}

// The blocks of a cluster and the packs of a thread that hold a row.
struct Division {
  int blocks, packs_of_block, held, threads;
};

template <int V>
Division divide(std::int64_t columns) {
  const std::int64_t packs = columns / V;
  int blocks = 1;
  while (blocks < kMostBlocks && packs > std::int64_t{blocks} * kMostThreads * kMostHeld) {
    blocks *= 2;
  }
  const auto packs_of_block = static_cast<int>(ceil_div<std::int64_t>(packs, blocks));
  const int held = packs_of_block > 2 * kWarp ? kMostHeld : 2;
  return {blocks, packs_of_block, held, ceil_div(ceil_div(packs_of_block, held), kWarp) * kWarp};
}

// As many clusters as the card holds at once, each for its share of the rows.
template <class T, int V, int Held>
void launch(cudaStream_t stream, const Division& division, const LossCall<T>& call) {
  const auto kernel = cross_entropy_kernel<T, V, Held>;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeClusterDimension;
  attributes[0].val.clusterDim.x = static_cast<unsigned>(division.blocks);
  attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  const int shared = kStages * Held * division.threads * kPackBytes;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(division.blocks));
  config.blockDim = dim3(static_cast<unsigned>(division.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = 1;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  int clusters = 0;
  CUDA_CHECK(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
  const auto used = std::min<std::int64_t>(call.rows, std::max(clusters, 1));
  config.gridDim = dim3(static_cast<unsigned>(used * division.blocks));
  config.numAttrs = 2;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, call));
}

// Whether the row fits; f64 is left to the passes apart.
template <class T>
bool run(cudaStream_t stream, const Tensor& losses, const Tensor& statistics, const Tensor& logits,
         const Tensor& targets, const Scalar& scale) {
  constexpr int V = kPackBytes / sizeof(T);
  if (!packable(kPackBytes, {logits})) return false;
  const Division division = divide<V>(logits.cols());
  if (division.threads > kMostThreads) return false;
  const LossCall<T> call{losses.data<double>(),   rows_of<Wide<T>>(statistics),
                         rows_of<T>(logits),      targets.data<std::int32_t>(),
                         logits.rows(),           static_cast<int>(logits.cols()),
                         division.packs_of_block, KernelScalar<Wide<T>>(scale)};
  division.held == 2 ? launch<T, V, 2>(stream, division, call)
                     : launch<T, V, kMostHeld>(stream, division, call);
  return true;
}

bool has_clusters(int device) {
  int major = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  return major >= 9;
}

}  // namespace
}  // namespace cuda

void CudaBackend::cross_entropy(Tensor losses, Tensor statistics, Tensor logits, Tensor targets,
                                const Scalar& scale) {
  using namespace cuda;
  if (logits.size() == 0) return;
  bool done = false;
  if (has_clusters(device_) && logits.dtype() == DType::bf16) {
    done = run<bf16>(stream_, losses, statistics, logits, targets, scale);
  } else if (has_clusters(device_) && logits.dtype() == DType::f32) {
    done = run<float>(stream_, losses, statistics, logits, targets, scale);
  }
  if (!done) Backend::cross_entropy(losses, statistics, logits, targets, scale);
}

}  // namespace convoy
