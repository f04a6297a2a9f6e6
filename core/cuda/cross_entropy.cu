// Cross-entropy and its gradient with the logits read once. A row lies in the registers of a
// cluster of blocks between its two passes: maximum and sum of exponentials, then the gradient,
// which overwrites it. The blocks of a cluster have a run of columns each; their warps tell each
// other their two numbers through shared memory. A cluster goes from row to row, and each thread
// copies ahead into slots of its own what it will need of the next rows, so that memory is busy
// during the exponentials and the barrier, of which a row has one.
#include <cooperative_groups.h>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/kernel_scalar.cuh"
#include "core/cuda/reductions.cuh"
#include "core/cuda/shared_memory.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kMostThreads = 512;
constexpr int kMostBlocks = 8;  // of a cluster; what every card that has clusters can do
constexpr int kMostHeld = 4;    // packs of a thread; more do not fit beside two blocks a processor
constexpr int kRowsAhead = 2;
constexpr int kStages = kRowsAhead + 1;
constexpr int kPackBytes = 16;
constexpr int kMostWarps = kMostThreads / kWarp;

template <class W>
struct PartOfSoftmax {
  W largest, sum;  // of exp(x - largest)
};

// e^x for x <= 0 in three instructions; relative error below 2^-22 + |x| 2^-23, 0 below e^-87.
__device__ inline float falling_exponential(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504088896341f));
  return y;
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
    if (own[i].sum != W(0)) sum += own[i].sum * falling_exponential(own[i].largest - largest);
  }
  return {largest, warp_sum(sum)};
}

template <class T, int V, int Held>
__global__ void __launch_bounds__(kMostThreads, 2)
    cross_entropy_kernel(double* losses, Rows<Wide<T>> statistics, Rows<T> logits,
                         const std::int32_t* targets, std::int64_t rows, int columns,
                         int packs_of_block, KernelScalar<Wide<T>> scale_now) {
#if __CUDA_ARCH__ >= 900
  using W = Wide<T>;
  extern __shared__ uint4 slots[];  // [stage, held, thread]
  __shared__ PartOfSoftmax<W> parts[2][kMostBlocks * kMostWarps];
  const auto cluster = cooperative_groups::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks());
  const int block = static_cast<int>(cluster.block_rank());
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int warps = threads / kWarp, warp = thread / kWarp, lane = thread % kWarp;
  const int first_column = block * packs_of_block * V;
  const int packs = max(min(packs_of_block, columns / V - block * packs_of_block), 0);
  const std::int64_t first = blockIdx.x / blocks, step = gridDim.x / blocks;

  const auto slot = [&](int stage, int k) {
    return shared_address(slots) +
           static_cast<std::uint32_t>(((stage * Held + k) * threads + thread) * kPackBytes);
  };
  const auto copy_row_ahead = [&](std::int64_t row, int stage) {
    if (row < rows) {
      const T* const begin = logits.row(row) + first_column;
#pragma unroll
      for (int k = 0; k < Held; ++k) {
        const int pack = k * threads + thread;
        if (pack < packs) copy_ahead<kPackBytes>(slot(stage, k), begin + pack * V, true);
      }
    }
    commit_copies();  // also where there is none, so that their number tells the row
  };

  for (int ahead = 0; ahead < kRowsAhead; ++ahead) copy_row_ahead(first + ahead * step, ahead);
  if (blocks > 1) cluster.sync();  // all blocks are there to be written to
  const W scale = scale_now.read();
  int stage = 0, parity = 0;
  for (std::int64_t row = first; row < rows; row += step) {
    copy_row_ahead(row + kRowsAhead * step, (stage + kRowsAhead) % kStages);
    wait_copies<kRowsAhead>();
    Pack<T, V> held[Held];
    W largest = -INFINITY;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (k * threads + thread >= packs) continue;
      const uint4 bits = load_shared16(slot(stage, k));
      held[k] = reinterpret_cast<const Pack<T, V>&>(bits);
#pragma unroll
      for (int e = 0; e < V; ++e) largest = max(largest, widen(held[k].element[e]));
    }
    largest = warp_max(largest);
    W sum = 0;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (k * threads + thread >= packs) continue;
#pragma unroll
      for (int e = 0; e < V; ++e) sum += falling_exponential(widen(held[k].element[e]) - largest);
    }
    sum = warp_sum(sum);
    if (lane < blocks) {
      *cluster.map_shared_rank(&parts[parity][block * warps + warp], lane) = {largest, sum};
    }
    blocks > 1 ? cluster.sync() : __syncthreads();
    const PartOfSoftmax<W> whole = merge(parts[parity], blocks * warps);

    const int target = targets[row];
    const bool counts = target >= 0;
    const W factor = counts ? scale / whole.sum : W(0);
    const auto publish = [&](W target_logit) {
      W* out = statistics.row(row);
      out[0] = whole.largest, out[1] = whole.sum, out[2] = target_logit;
      losses[row] = counts
                        ? log(static_cast<double>(whole.sum)) + static_cast<double>(whole.largest) -
                              static_cast<double>(target_logit)
                        : 0.0;
    };
    if (!(counts && target < columns) && block == 0 && thread == 0) publish(0);
    const int own_target = counts ? target - first_column : -1;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      const int pack = k * threads + thread;
      if (pack >= packs) continue;
      Pack<T, V> gradient;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const W p = falling_exponential(widen(held[k].element[e]) - whole.largest) * factor;
        gradient.element[e] = narrow<T>(counts ? p : W(0));
      }
      if (own_target >= 0 && own_target / V == pack) {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          if (own_target % V != e) continue;
          const W logit = widen(held[k].element[e]);
          publish(logit);
          gradient.element[e] =
              narrow<T>(falling_exponential(logit - whole.largest) * factor - scale);
        }
      }
      __stcs(reinterpret_cast<uint4*>(logits.row(row) + first_column + pack * V),
             reinterpret_cast<const uint4&>(gradient));
    }
    stage = (stage + 1) % kStages, parity ^= 1;
  }
#endif
}

// The blocks of a cluster and the packs of a thread that hold a row.
struct Division {
  int blocks, packs_of_block, held, threads;

  int shared_bytes() const { return kStages * held * threads * kPackBytes; }
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
void launch(cudaStream_t stream, const Division& division, const Tensor& losses,
            const Tensor& statistics, const Tensor& logits, const Tensor& targets,
            const Scalar& scale) {
  const auto kernel = cross_entropy_kernel<T, V, Held>;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(division.blocks);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(division.blocks));
  config.blockDim = dim3(static_cast<unsigned>(division.threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(division.shared_bytes());
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  division.shared_bytes()));
  int clusters = 0;
  CUDA_CHECK(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config));
  const auto used = std::min<std::int64_t>(logits.rows(), std::max(clusters, 1));
  config.gridDim = dim3(static_cast<unsigned>(used * division.blocks));
  CUDA_CHECK(cudaLaunchKernelEx(
      &config, kernel, losses.data<double>(), rows_of<Wide<T>>(statistics), rows_of<T>(logits),
      static_cast<const std::int32_t*>(targets.data<std::int32_t>()), logits.rows(),
      static_cast<int>(logits.cols()), division.packs_of_block, KernelScalar<Wide<T>>(scale)));
}

// Whether the row fits; f64 is left to the passes apart.
template <class T>
bool run(cudaStream_t stream, const Tensor& losses, const Tensor& statistics, const Tensor& logits,
         const Tensor& targets, const Scalar& scale) {
  constexpr int V = kPackBytes / sizeof(T);
  if (!packable(kPackBytes, {logits})) return false;
  const Division division = divide<V>(logits.cols());
  const auto launch_with = [&]<int Held>() {
    launch<T, V, Held>(stream, division, losses, statistics, logits, targets, scale);
  };
  if (division.threads > kMostThreads) return false;
  division.held == 2 ? launch_with.template operator()<2>()
                     : launch_with.template operator()<kMostHeld>();
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
