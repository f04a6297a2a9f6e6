// The gradients of RMSNorm apart, of groups of channels. A warp takes one group of one row and
// keeps it in registers, so a sum needs no shared memory and a group of up to 2,048 bf16 is read
// once.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/norm_groups.cuh"
#include "core/cuda/partial_sums.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr unsigned kWarps = 8;  // of a block

// The group of the calling warp, or none.
__device__ inline std::uint32_t group_of_warp() {
  return blockIdx.x * kWarps + threadIdx.x / kWarp;
}

// How many packs of a group a lane may hold in registers; wider groups are read again.
constexpr int kHeld = 8;

// Calls run(k, j) for each of a lane's packs of a group: k is the number of the pack where it is
// held, else -1; j its first channel in the group.
template <int V, class Function>
__device__ inline void for_each_pack(std::int64_t width, Function&& run) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const std::int64_t j = (std::int64_t{k} * kWarp + lane) * V;
    if (j < width) run(k, j);
  }
  for (std::int64_t j = (std::int64_t{kHeld} * kWarp + lane) * V; j < width; j += kWarp * V) {
    run(-1, j);
  }
}

// dx = rstd (w dy - n mean(w dy n)) with n = x rstd, plus the residual where one is given.
template <class T, int V, bool Adds>
__global__ void norm_backward_kernel(Rows<T> dx, Rows<const T> dy, Rows<const T> x,
                                     Rows<const Wide<T>> rstd, const T* weight,
                                     Rows<const T> residual, Groups groups) {
  using W = Wide<T>;
  const std::uint32_t group = group_of_warp();
  if (group >= groups.count) return;
  const std::int64_t row = groups.row(group), column = groups.column(group);
  const W r = rstd.row(row)[groups.of_row(group)];
  Pack<T, V> held_x[kHeld], held_dy[kHeld];
  W products = 0;
  for_each_pack<V>(groups.width, [&](int k, std::int64_t j) {
    const auto in = load_pack<V>(x.row(row) + column + j);
    const auto d = load_pack<V>(dy.row(row) + column + j);
    const auto w = load_pack<V>(weight + j);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      products += widen(w.element[e]) * widen(d.element[e]) * widen(in.element[e]);
    }
    if (k >= 0) held_x[k] = in, held_dy[k] = d;
  });
  const W mean = warp_sum(products) * r / static_cast<W>(groups.width);
  for_each_pack<V>(groups.width, [&](int k, std::int64_t j) {
    const auto in = k >= 0 ? held_x[k] : load_pack<V>(x.row(row) + column + j);
    const auto d = k >= 0 ? held_dy[k] : load_pack<V>(dy.row(row) + column + j);
    const auto w = load_pack<V>(weight + j);
    Pack<T, V> result, rest;
    if (Adds) rest = load_pack<V>(residual.row(row) + column + j);
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W weighted = widen(w.element[e]) * widen(d.element[e]);
      const W own = r * (weighted - widen(in.element[e]) * r * mean);
      result.element[e] = narrow<T>(Adds ? own + widen(rest.element[e]) : own);
    }
    store_pack(dx.row(row) + column + j, result);
  });
}

constexpr int kSlices = 8;  // of the groups of a chunk, one a warp

// partial[chunk, j] = sum over the groups of a chunk of dy x rstd. Block: 32 lanes of V columns by
// kSlices; grid: column blocks by chunks.
template <class T, int V>
__global__ void norm_weight_kernel(Wide<T>* partial, Rows<const T> dy, Rows<const T> x,
                                   Rows<const Wide<T>> rstd, Groups groups,
                                   std::int64_t chunk_size) {
  using W = Wide<T>;
  __shared__ W sums[kSlices][kWarp * V];
  const std::int64_t j = (blockIdx.x * std::int64_t{kWarp} + threadIdx.x) * V;
  const std::int64_t first = blockIdx.y * chunk_size;
  const std::int64_t last = min(first + chunk_size, std::int64_t{groups.count});
  W sum[V] = {};
  if (j < groups.width) {
    for (std::int64_t i = first + threadIdx.y; i < last; i += kSlices) {
      const auto group = static_cast<std::uint32_t>(i);
      const std::int64_t row = groups.row(group), column = groups.column(group) + j;
      const auto in = load_pack<V>(x.row(row) + column);
      const auto d = load_pack<V>(dy.row(row) + column);
      const W r = rstd.row(row)[groups.of_row(group)];
#pragma unroll
      for (int e = 0; e < V; ++e) sum[e] += widen(d.element[e]) * widen(in.element[e]) * r;
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) sums[threadIdx.y][threadIdx.x * V + e] = sum[e];
  __syncthreads();
  if (threadIdx.y != 0 || j >= groups.width) return;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    W total = 0;
    for (int slice = 0; slice < kSlices; ++slice) total += sums[slice][threadIdx.x * V + e];
    partial[blockIdx.y * groups.width + j + e] = total;
  }
}

unsigned blocks_of(const Groups& groups) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(groups.count, kWarps));
}

// Calls run.template operator()<T, V>() with packs of 16 bytes where they fit, else single
// elements. Groups must begin at packs too.
template <class Function>
void dispatch_packs(std::int64_t width, std::initializer_list<Tensor> tensors, Function&& run) {
  dispatch_element(tensors.begin()->dtype(), [&]<class T>() {
    constexpr int V = 16 / sizeof(T);
    if (width % V == 0 && packable(16, tensors)) return run.template operator()<T, V>();
    run.template operator()<T, 1>();
  });
}

}  // namespace
}  // namespace cuda

void CudaBackend::rmsnorm_backward_input(Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                                         Tensor weight) {
  using namespace cuda;
  if (x.size() == 0) return;
  const Groups groups = groups_of(x, weight.size());
  dispatch_packs(weight.size(), {x, dx, dy, weight}, [&]<class T, int V>() {
    norm_backward_kernel<T, V, false><<<blocks_of(groups), kWarps * kWarp, 0, stream_>>>(
        rows_of<T>(dx), read_rows<T>(dy), read_rows<T>(x), read_rows<Wide<T>>(rstd),
        data_of<T>(weight), {}, groups);
  });
  check_launch();
}

void CudaBackend::rmsnorm_backward_input_add(Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                                             Tensor weight, Tensor residual) {
  using namespace cuda;
  if (x.size() == 0) return;
  const Groups groups = groups_of(x, weight.size());
  dispatch_packs(weight.size(), {x, dx, dy, residual, weight}, [&]<class T, int V>() {
    norm_backward_kernel<T, V, true><<<blocks_of(groups), kWarps * kWarp, 0, stream_>>>(
        rows_of<T>(dx), read_rows<T>(dy), read_rows<T>(x), read_rows<Wide<T>>(rstd),
        data_of<T>(weight), read_rows<T>(residual), groups);
  });
  check_launch();
}

void CudaBackend::rmsnorm_backward_weight(Tensor dweight, Tensor dy, Tensor x, Tensor rstd) {
  using namespace cuda;
  if (x.size() == 0) return;
  const Groups groups = groups_of(x, dweight.size());
  constexpr std::int64_t kChunk = 256;  // groups; more where there would be many chunks
  const std::int64_t chunk = std::max(kChunk, ceil_div<std::int64_t>(groups.count, 512));
  const std::int64_t chunks = ceil_div<std::int64_t>(groups.count, chunk);
  dispatch_packs(dweight.size(), {x, dy}, [&]<class T, int V>() {
    using W = Wide<T>;
    workspace_->begin(static_cast<std::size_t>(chunks * groups.width) * sizeof(W));
    W* partial = workspace_->take<W>(chunks * groups.width);
    const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(groups.width, kWarp * V)),
                    static_cast<unsigned>(chunks));
    norm_weight_kernel<T, V><<<grid, dim3(kWarp, kSlices), 0, stream_>>>(
        partial, read_rows<T>(dy), read_rows<T>(x), read_rows<W>(rstd), groups, chunk);
    add_partials(data_of<W>(dweight), partial, groups.width, chunks, stream_);
  });
  check_launch();
}

}  // namespace convoy
