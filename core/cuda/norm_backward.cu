// Both gradients of RMSNorm over whole rows in one pass over x and dy. A warp takes every eighth
// row of a chunk, keeps a row in registers, and adds up its share of the weight's gradient there;
// a block adds its warps in order, the last kernel the chunks in order.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/partial_sums.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kWarps = 8;     // of a block
constexpr int kMostHeld = 8;  // packs of a lane

// dx = rstd (w dy - n mean(w dy n)) with n = x rstd, plus the residual where one is given;
// partial[chunk, j] = sum over the chunk's rows of dy n. Every lane loads as many packs as any, so
// that no branch stands between the loads; those past the width are not used.
template <class T, int V, int Held, bool Adds>
__global__ void __launch_bounds__(kWarps* kWarp, Held <= 4 ? 2 : 1)
    norm_backward_rows_kernel(Rows<T> dx, Wide<T>* partial, Rows<const T> dy, Rows<const T> x,
                              Rows<const Wide<T>> rstd, const T* weight, Rows<const T> residual,
                              std::int64_t rows, int width, std::int64_t chunk_size) {
  using W = Wide<T>;
  __shared__ W sums[kWarps][kWarp * V];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const auto column = [&](int k) { return (k * kWarp + lane) * V; };
  const auto inside = [&](int k) { return column(k) < width; };
  const auto load = [&](const T* row, int k) {
    return load_pack<V>(row + (inside(k) ? column(k) : 0));
  };
  W sum[Held][V] = {};

  const std::int64_t first = blockIdx.x * chunk_size, last = min(first + chunk_size, rows);
  for (std::int64_t row = first + warp; row < last; row += kWarps) {
    Pack<T, V> in[Held], d[Held], rest[Held];
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      in[k] = load(x.row(row), k);
      d[k] = load(dy.row(row), k);
      if (Adds) rest[k] = load(residual.row(row), k);
    }
    const W r = rstd.row(row)[0];
    W products = 0;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!inside(k)) continue;
      const auto w = load(weight, k);  // out of the nearest cache: registers are scarcer
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const W product = widen(d[k].element[e]) * widen(in[k].element[e]);
        products += widen(w.element[e]) * product;
        sum[k][e] += product * r;
      }
    }
    const W mean = warp_sum(products) * r / static_cast<W>(width);
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!inside(k)) continue;
      const auto w = load(weight, k);
      Pack<T, V> result;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const W weighted = widen(w.element[e]) * widen(d[k].element[e]);
        const W own = r * (weighted - widen(in[k].element[e]) * r * mean);
        result.element[e] = narrow<T>(Adds ? own + widen(rest[k].element[e]) : own);
      }
      store_pack(dx.row(row) + column(k), result);
    }
  }

#pragma unroll
  for (int k = 0; k < Held; ++k) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < V; ++e) sums[warp][lane * V + e] = sum[k][e];
    __syncthreads();
    for (int c = threadIdx.x; c < kWarp * V; c += kWarps * kWarp) {
      const int j = k * kWarp * V + c;
      if (j >= width) continue;
      W total = 0;
      for (int i = 0; i < kWarps; ++i) total += sums[i][c];
      partial[blockIdx.x * std::int64_t{width} + j] = total;
    }
  }
}

// Rows of a chunk: so that there are some hundred chunks, whatever the card.
std::int64_t chunk_rows(std::int64_t rows) {
  constexpr std::int64_t kLeast = 2 * kWarps, kChunks = 264;
  return std::max(kLeast, ceil_div(ceil_div(rows, kChunks), std::int64_t{kWarps}) * kWarps);
}

struct Operands {
  Tensor dx, dweight, dy, x, rstd, weight, residual;
};

template <class T, int V, int Held>
void launch(cudaStream_t stream, Wide<T>* partial, const Operands& on, std::int64_t chunk) {
  const auto kernel = on.residual.empty() ? norm_backward_rows_kernel<T, V, Held, false>
                                          : norm_backward_rows_kernel<T, V, Held, true>;
  const auto chunks = static_cast<unsigned>(ceil_div(on.x.rows(), chunk));
  kernel<<<chunks, kWarps * kWarp, 0, stream>>>(rows_of<T>(on.dx), partial, read_rows<T>(on.dy),
                                                read_rows<T>(on.x), read_rows<Wide<T>>(on.rstd),
                                                data_of<T>(on.weight), read_rows<T>(on.residual),
                                                on.x.rows(), static_cast<int>(on.x.cols()), chunk);
  check_launch();
}

// Whether a warp's registers hold a row of this.
template <class T>
bool run(cudaStream_t stream, Workspace& workspace, const Operands& on) {
  using W = Wide<T>;
  constexpr int V = 16 / sizeof(T);
  const std::int64_t width = on.weight.size();
  const std::int64_t held = ceil_div<std::int64_t>(width, kWarp * V);
  if (on.x.cols() != width || held > kMostHeld || !packable(16, {on.dx, on.dy, on.x, on.weight}) ||
      (!on.residual.empty() && !packable(16, {on.residual}))) {
    return false;
  }
  const std::int64_t chunk = chunk_rows(on.x.rows()), chunks = ceil_div(on.x.rows(), chunk);
  workspace.begin(static_cast<std::size_t>(chunks * width) * sizeof(W));
  W* partial = workspace.take<W>(chunks * width);
  if (held == 1) {
    launch<T, V, 1>(stream, partial, on, chunk);
  } else if (held == 2) {
    launch<T, V, 2>(stream, partial, on, chunk);
  } else if (held <= 4) {
    launch<T, V, 4>(stream, partial, on, chunk);
  } else {
    launch<T, V, kMostHeld>(stream, partial, on, chunk);
  }
  add_partials(data_of<W>(on.dweight), partial, width, chunks, stream);
  check_launch();
  return true;
}

}  // namespace
}  // namespace cuda

void CudaBackend::rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, Tensor rstd,
                                   Tensor weight, Tensor residual) {
  using namespace cuda;
  if (x.size() == 0) return;
  const Operands on{dx, dweight, dy, x, rstd, weight, residual};
  // One pass adds the rows of dweight up in other chunks than the two passes apart, which a
  // schedule with a split backward runs: in invariant mode both must give the same bits.
  bool done = false;
  const bool one_pass = mode_ == NumericsMode::fast;
  if (one_pass && x.dtype() == DType::bf16) done = run<bf16>(stream_, *workspace_, on);
  if (one_pass && x.dtype() == DType::f32) done = run<float>(stream_, *workspace_, on);
  if (!done) Backend::rmsnorm_backward(dx, dweight, dy, x, rstd, weight, residual);
}

}  // namespace convoy
