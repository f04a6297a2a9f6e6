// Cross-entropy and its gradient with the logits read once. A row lies in the registers of a
// cluster of blocks between its two passes: maximum and sum of exponentials, then the gradient,
// which overwrites it. The blocks of a cluster have a run of columns each and tell each other their
// two numbers through their shared memories.
#include <cooperative_groups.h>

#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kMostThreads = 512;
constexpr int kMostBlocks = 8;  // of a cluster; what every card that has clusters can do
constexpr int kMostHeld = 4;    // packs of a thread; more do not fit beside two blocks a processor

template <class W>
struct PartOfSoftmax {
  W largest, sum;  // of exp(x - largest)
};

template <class T, int V, int Held>
__global__ void __launch_bounds__(kMostThreads, 2)
    cross_entropy_kernel(double* losses, Rows<Wide<T>> statistics, Rows<T> logits,
                         const std::int32_t* targets, int columns, int packs_of_block,
                         Wide<T> scale) {
#if __CUDA_ARCH__ >= 900
  using W = Wide<T>;
  __shared__ W shared[kMostThreads / kWarp];
  __shared__ PartOfSoftmax<W> own;
  const auto cluster = cooperative_groups::this_cluster();
  const auto blocks = static_cast<int>(cluster.num_blocks());
  const int block = static_cast<int>(cluster.block_rank());
  const std::int64_t row = blockIdx.x / blocks;
  T* const begin = logits.row(row) + static_cast<std::int64_t>(block) * packs_of_block * V;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int packs = max(min(packs_of_block, columns / V - block * packs_of_block), 0);

  const int target = targets[row];
  const bool counts = target >= 0, is_here = counts && target < columns;
  const W target_logit = is_here ? widen(logits.row(row)[target]) : W(0);

  Pack<T, V> held[Held];
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    const int pack = k * threads + thread;
    if (pack < packs) held[k] = load_pack<V>(static_cast<const T*>(begin) + pack * V);
  }
  W largest = -INFINITY;
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    if (k * threads + thread >= packs) continue;
#pragma unroll
    for (int e = 0; e < V; ++e) largest = max(largest, widen(held[k].element[e]));
  }
  largest = block_max(largest, shared);
  W sum = 0;
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    if (k * threads + thread >= packs) continue;
#pragma unroll
    for (int e = 0; e < V; ++e) sum += exponential(widen(held[k].element[e]) - largest);
  }
  sum = block_sum(sum, shared);
  if (thread == 0) own = {largest, sum};
  cluster.sync();  // and every block has read what it needs of the row

  for (int other = 0; other < blocks; ++other) {
    largest = max(largest, cluster.map_shared_rank(&own, other)->largest);
  }
  sum = 0;
  for (int other = 0; other < blocks; ++other) {
    const PartOfSoftmax<W> part = *cluster.map_shared_rank(&own, other);
    if (part.sum != W(0)) sum += part.sum * exponential(part.largest - largest);
  }
  if (block == 0 && thread == 0) {
    W* out = statistics.row(row);
    out[0] = largest, out[1] = sum, out[2] = target_logit;
    losses[row] = counts ? log(static_cast<double>(sum)) + static_cast<double>(largest) -
                               static_cast<double>(target_logit)
                         : 0.0;
  }
  const W factor = counts ? scale / sum : W(0);
  const int own_target = counts ? target - block * packs_of_block * V : -1;
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    const int pack = k * threads + thread;
    if (pack >= packs) continue;
    Pack<T, V> gradient;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W p = exponential(widen(held[k].element[e]) - largest) * factor;
      const W value = own_target == pack * V + e ? p - scale : p;
      gradient.element[e] = narrow<T>(counts ? value : W(0));
    }
    store_pack(begin + pack * V, gradient);
  }
  cluster.sync();  // a block's shared memory stays until the others have read it
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
  const int held = ceil_div(packs_of_block, kMostThreads);
  return {blocks, packs_of_block, held, ceil_div(ceil_div(packs_of_block, held), kWarp) * kWarp};
}

template <class T, int V, int Held>
void launch(cudaStream_t stream, const Division& division, const Tensor& losses,
            const Tensor& statistics, const Tensor& logits, const Tensor& targets, double scale) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = static_cast<unsigned>(division.blocks);
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(logits.rows() * division.blocks));
  config.blockDim = dim3(static_cast<unsigned>(division.threads));
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CUDA_CHECK(cudaLaunchKernelEx(&config, cross_entropy_kernel<T, V, Held>, losses.data<double>(),
                                rows_of<Wide<T>>(statistics), rows_of<T>(logits),
                                static_cast<const std::int32_t*>(targets.data<std::int32_t>()),
                                static_cast<int>(logits.cols()), division.packs_of_block,
                                static_cast<Wide<T>>(scale)));
}

// Whether the row fits; f64 is left to the passes apart.
template <class T>
bool run(cudaStream_t stream, const Tensor& losses, const Tensor& statistics, const Tensor& logits,
         const Tensor& targets, double scale) {
  constexpr int V = 16 / sizeof(T);
  const Division division = divide<V>(logits.cols());
  if (division.held > kMostHeld || !packable(16, {logits})) return false;
  const auto launch_with = [&]<int Held>() {
    launch<T, V, Held>(stream, division, losses, statistics, logits, targets, scale);
  };
  division.held <= 2 ? launch_with.template operator()<2>()
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
                                double scale) {
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
