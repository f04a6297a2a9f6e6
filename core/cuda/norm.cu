// RMSNorm. A warp takes one group of channels of one row and keeps it in
// registers, so a sum needs no shared memory and a group of up to 2,048 bf16 is read once.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/partial_sums.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr unsigned kWarps = 8;  // of a block

// Groups are numbered in 32 bits: a division of 64 is as much work as the norm of a narrow row.
struct Groups {
  std::uint32_t count, per_row;
  std::int64_t width;

  __device__ std::int64_t row(std::uint32_t group) const { return group / per_row; }
  __device__ std::int64_t of_row(std::uint32_t group) const { return group % per_row; }
  __device__ std::int64_t column(std::uint32_t group) const { return of_row(group) * width; }
};

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

// y = norm of x, or of sum = x + b where b is given. All loads of a group that fits come before its
// first store; a wider one is read again where it is not held.
template <class T, int V, int Held, bool Adds>
__global__ void norm_forward_kernel(Rows<T> y, Rows<Wide<T>> rstd, Rows<const T> x, Rows<T> sum,
                                    Rows<const T> b, const T* weight, Groups groups,
                                    Wide<T> epsilon) {
  using W = Wide<T>;
  const std::uint32_t group = group_of_warp();
  if (group >= groups.count) return;
  const std::int64_t row = groups.row(group), column = groups.column(group);
  const int lane = threadIdx.x % kWarp;
  const auto place = [&](int k) { return (std::int64_t{k} * kWarp + lane) * V; };
  const auto inside = [&](int k) { return place(k) < groups.width; };
  const auto added = [](const Pack<T, V>& left, const Pack<T, V>& right) {
    Pack<T, V> result;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      result.element[e] = narrow<T>(widen(left.element[e]) + widen(right.element[e]));
    }
    return result;
  };
  W squares = 0;
  const auto add_squares = [&](const Pack<T, V>& pack) {
#pragma unroll
    for (int e = 0; e < V; ++e) squares += widen(pack.element[e]) * widen(pack.element[e]);
  };

  Pack<T, V> held[Held], other[Held], weights[Held];
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    const std::int64_t j = inside(k) ? place(k) : 0;
    held[k] = load_pack<V>(x.row(row) + column + j);
    if (Adds) other[k] = load_pack<V>(b.row(row) + column + j);
    weights[k] = load_pack<V>(weight + j);
  }
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    if (!inside(k)) continue;
    if (Adds) held[k] = added(held[k], other[k]);
    add_squares(held[k]);
  }
  for (std::int64_t j = place(Held); j < groups.width; j += kWarp * V) {
    auto pack = load_pack<V>(x.row(row) + column + j);
    if (Adds) {
      pack = added(pack, load_pack<V>(b.row(row) + column + j));
      store_pack(sum.row(row) + column + j, pack);
    }
    add_squares(pack);
  }
  const W r = W(1) / sqrt(warp_sum(squares) / static_cast<W>(groups.width) + epsilon);
  if (lane == 0) rstd.row(row)[groups.of_row(group)] = r;

  const auto store_normed = [&](std::int64_t j, const Pack<T, V>& pack, const Pack<T, V>& w) {
    Pack<T, V> result;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      result.element[e] = narrow<T>(widen(pack.element[e]) * r * widen(w.element[e]));
    }
    store_pack(y.row(row) + column + j, result);
  };
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    if (!inside(k)) continue;
    if (Adds) store_pack(sum.row(row) + column + place(k), held[k]);
    store_normed(place(k), held[k], weights[k]);
  }
  const T* again = Adds ? sum.row(row) : x.row(row);
  for (std::int64_t j = place(Held); j < groups.width; j += kWarp * V) {
    store_normed(j, load_pack<V>(again + column + j), load_pack<V>(weight + j));
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

Groups groups_of(const Tensor& x, std::int64_t width) {
  const std::int64_t per_row = x.cols() / width, count = x.rows() * per_row;
  CHECK(count < std::int64_t{1} << 31, "norm of ", count, " groups of ", width, " channels");
  return {static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(per_row), width};
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

// Calls run.template operator()<T, V, Held>(): packs as above, and how many of them a lane holds.
template <class Function>
void dispatch_held(std::int64_t width, std::initializer_list<Tensor> tensors, Function&& run) {
  dispatch_packs(width, tensors, [&]<class T, int V>() {
    const std::int64_t held = ceil_div<std::int64_t>(width, kWarp * V);
    if constexpr (V > 1 && sizeof(T) < 8) {
      if (held == 1) return run.template operator()<T, V, 1>();
      if (held == 2) return run.template operator()<T, V, 2>();
      if (held <= 4) return run.template operator()<T, V, 4>();
    }
    run.template operator()<T, V, kHeld>();
  });
}

}  // namespace
}  // namespace cuda

void CudaBackend::rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor weight, double epsilon) {
  using namespace cuda;
  if (x.size() == 0) return;
  const Groups groups = groups_of(x, weight.size());
  dispatch_held(weight.size(), {x, y, weight}, [&]<class T, int V, int Held>() {
    norm_forward_kernel<T, V, Held, false><<<blocks_of(groups), kWarps * kWarp, 0, stream_>>>(
        rows_of<T>(y), rows_of<Wide<T>>(rstd), read_rows<T>(x), {}, {}, data_of<T>(weight), groups,
        static_cast<Wide<T>>(epsilon));
  });
  check_launch();
}

void CudaBackend::add_rmsnorm_forward(Tensor sum, Tensor y, Tensor rstd, Tensor a, Tensor b,
                                      Tensor weight, double epsilon) {
  using namespace cuda;
  if (sum.size() == 0) return;
  const Groups groups = groups_of(sum, weight.size());
  dispatch_held(weight.size(), {sum, y, a, b, weight}, [&]<class T, int V, int Held>() {
    norm_forward_kernel<T, V, Held, true><<<blocks_of(groups), kWarps * kWarp, 0, stream_>>>(
        rows_of<T>(y), rows_of<Wide<T>>(rstd), read_rows<T>(a), rows_of<T>(sum), read_rows<T>(b),
        data_of<T>(weight), groups, static_cast<Wide<T>>(epsilon));
  });
  check_launch();
}

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
