// Both gradients of RMSNorm over whole rows in one pass over x and dy. Some lanes of a warp take a
// row, adding up their share of the weight's gradient in registers, and go on to another of their
// chunk's; what a lane needs of that it has copied ahead into slots of its own in shared memory. A
// block adds its lanes in order, the last kernel the chunks in order.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/partial_sums.cuh"
#include "core/cuda/reductions.cuh"
#include "core/cuda/shared_memory.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kWarps = 8;  // of a block
constexpr int kThreads = kWarps * kWarp;
constexpr int kPackBytes = 16;
constexpr int kMostHeld = 8;  // packs of a lane

template <class T>
struct NormBackwardCall {
  Rows<T> dx;
  Wide<T>* partial;  // [chunks, width]
  Rows<const T> dy, x;
  Rows<const Wide<T>> rstd;
  const T* weight;
  Rows<const T> residual;
  std::int64_t rows, chunk_size;
  int width;
};

// A lane's packs of the rows that its lanes take: of the row at hand and, with two stages, the
// next.
template <class T, int V, int Lanes, int Held, int Stages, bool Adds>
class RowPacks {
 public:
  using Value = Pack<Wide<T>, V>;
  static constexpr int kMatrices = Adds ? 3 : 2;  // dy, x, residual
  static constexpr int kSlotBytes = Stages * kMatrices * Held * kThreads * kPackBytes;

  __device__ RowPacks(const NormBackwardCall<T>& call, const uint4* slots)
      : call_(call),
        slots_(kept_shared_address(slots + threadIdx.x)),
        lane_(static_cast<int>(threadIdx.x) % Lanes) {}

  __device__ int column(int k) const { return (k * Lanes + lane_) * V; }
  __device__ bool inside(int k) const { return column(k) < call_.width; }

  // Also where there is no such row, so that the number of copies tells the row.
  __device__ void copy(std::int64_t row, std::int64_t last, int stage) const {
    if (row < last) {
#pragma unroll
      for (int k = 0; k < Held; ++k) {
        if (!inside(k)) continue;
        copy_ahead<kPackBytes>(slot(stage, 0, k), call_.dy.row(row) + column(k), true);
        copy_ahead<kPackBytes>(slot(stage, 1, k), call_.x.row(row) + column(k), true);
        if (!Adds) continue;
        copy_ahead<kPackBytes>(slot(stage, 2, k), call_.residual.row(row) + column(k), true);
      }
    }
    commit_copies();
  }
  __device__ Value dy(int stage, int k) const { return value(slot(stage, 0, k)); }
  __device__ Value x(int stage, int k) const { return value(slot(stage, 1, k)); }
  __device__ Value residual(int stage, int k) const { return value(slot(stage, 2, k)); }

 private:
  __device__ std::uint32_t slot(int stage, int matrix, int k) const {
    return slots_ + ((stage * kMatrices + matrix) * Held + k) * kThreads * kPackBytes;
  }
  __device__ static Value value(std::uint32_t slot) {
    const uint4 bits = load_shared16(slot);
    Pack<T, V> pack;
    memcpy(&pack, &bits, sizeof pack);
    return widened(pack);
  }

  const NormBackwardCall<T>& call_;
  std::uint32_t slots_;  // [stage, matrix, held, thread]
  int lane_;
};

// dx = rstd (w dy - n mean(w dy n)) with n = x rstd, plus the residual where one is given;
// partial[chunk, j] = sum over the chunk's rows of dy n.
template <class T, int V, int Lanes, int Held, int Stages, bool Adds>
__global__ void __launch_bounds__(kThreads, Held <= 4 ? 2 : 1)
    norm_backward_rows_kernel(const NormBackwardCall<T> call) {
  using W = Wide<T>;
  constexpr int kWarpRows = kWarp / Lanes, kBlockRows = kWarps * kWarpRows;
  extern __shared__ uint4 slots[];
  __shared__ W sums[kBlockRows][Lanes * V];
  using Packs = RowPacks<T, V, Lanes, Held, Stages, Adds>;
  constexpr int kAhead = Stages - 1;
  const Packs packs(call, slots);
  const int lane = static_cast<int>(threadIdx.x) % Lanes;
  const int of_block = static_cast<int>(threadIdx.x) / Lanes;
  W sum[Held][V] = {};

  wait_for_previous();
  Pack<T, V> weights[Held];
#pragma unroll
  for (int k = 0; k < Held; ++k) {
    weights[k] = load_pack<V>(call.weight + (packs.inside(k) ? packs.column(k) : 0));
  }
  const std::int64_t begin = blockIdx.x * call.chunk_size;
  const std::int64_t last = min(begin + call.chunk_size, call.rows);
  std::int64_t first = begin + threadIdx.x / kWarp * kWarpRows;  // of the warp
  std::int64_t row = begin + of_block;
  const auto rstd = [&](std::int64_t of_row) { return call.rstd.row(min(of_row, last - 1))[0]; };
  if (kAhead == 1) packs.copy(row, last, 0);
  W next_r = rstd(row);
  int stage = 0;
  for (; first < last; first += kBlockRows, row += kBlockRows) {
    const W r = next_r;
    packs.copy(row + kAhead * kBlockRows, last, (stage + kAhead) % Stages);
    next_r = rstd(row + kBlockRows);
    wait_copies<kAhead>();
    // Lanes without a row keep those of their warp that have one company: sums are of whole warps.
    const bool has_row = row < last;
    W products = 0;
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!packs.inside(k) || !has_row) continue;
      const auto d = packs.dy(stage, k), in = packs.x(stage, k), w = widened(weights[k]);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const W product = d.element[e] * in.element[e];
        products += w.element[e] * product;
        sum[k][e] += product * r;
      }
    }
    const W mean = lanes_sum<Lanes>(products) * r / static_cast<W>(call.width);
    T* const out = call.dx.row(row);
#pragma unroll
    for (int k = 0; k < Held; ++k) {
      if (!packs.inside(k) || !has_row) continue;
      const auto d = packs.dy(stage, k), in = packs.x(stage, k), w = widened(weights[k]);
      typename Packs::Value rest = {};
      if (Adds) rest = packs.residual(stage, k);
      Pack<T, V> result;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const W own = r * (w.element[e] * d.element[e] - in.element[e] * r * mean);
        result.element[e] = narrow<T>(Adds ? own + rest.element[e] : own);
      }
      store_pack(out + packs.column(k), result);
    }
    stage = (stage + 1) % Stages;
  }

#pragma unroll
  for (int k = 0; k < Held; ++k) {
    __syncthreads();
#pragma unroll
    for (int e = 0; e < V; ++e) sums[of_block][lane * V + e] = sum[k][e];
    __syncthreads();
    for (int c = threadIdx.x; c < Lanes * V; c += kThreads) {
      const int j = k * Lanes * V + c;
      if (j >= call.width) continue;
      W total = 0;
      for (int i = 0; i < kBlockRows; ++i) total += sums[i][c];
      call.partial[blockIdx.x * std::int64_t{call.width} + j] = total;
    }
  }
}

// Rows of a chunk: so that there are some hundred chunks, whatever the card.
std::int64_t chunk_rows(std::int64_t rows) {
  constexpr std::int64_t kLeast = 2 * kWarps, kChunks = 264;  // also as many as rows at a time
  return std::max(kLeast, ceil_div(ceil_div(rows, kChunks), kLeast) * kLeast);
}

struct Operands {
  Tensor dx, dweight, dy, x, rstd, weight, residual;
};

// Rows ahead take as much shared memory again, which older cards do not have for the widest.
bool fits(int shared_bytes) {
  static const int most = [] {
    int device = 0, bytes = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return bytes;
  }();
  return shared_bytes <= most;
}

template <class T, int V, int Lanes, int Held>
void launch(cudaStream_t stream, const NormBackwardCall<T>& call) {
  const auto run = [&]<int Stages, bool Adds>() {
    launch_overlapped(norm_backward_rows_kernel<T, V, Lanes, Held, Stages, Adds>,
                      static_cast<unsigned>(ceil_div(call.rows, call.chunk_size)), kThreads,
                      RowPacks<T, V, Lanes, Held, Stages, Adds>::kSlotBytes, stream, call);
  };
  constexpr int kSumBytes = kWarps * kWarp * V * static_cast<int>(sizeof(Wide<T>));
  const auto with_stages = [&]<bool Adds>() {
    if constexpr (Held > 4) {
      constexpr int kBytes = RowPacks<T, V, Lanes, Held, 2, Adds>::kSlotBytes + kSumBytes;
      if (!fits(kBytes)) return run.template operator()<1, Adds>();
    }
    run.template operator()<2, Adds>();
  };
  call.residual.data == nullptr ? with_stages.template operator()<false>()
                                : with_stages.template operator()<true>();
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
  const NormBackwardCall<T> call{rows_of<T>(on.dx),
                                 partial,
                                 read_rows<T>(on.dy),
                                 read_rows<T>(on.x),
                                 read_rows<W>(on.rstd),
                                 data_of<T>(on.weight),
                                 read_rows<T>(on.residual),
                                 on.x.rows(),
                                 chunk,
                                 static_cast<int>(width)};
  // As few lanes as hold a row in a few packs each, so that none is idle.
  if (held == 1) {
    launch<T, V, kWarp, 1>(stream, call);
  } else if (width <= 48 * V) {
    launch<T, V, kWarp / 2, 3>(stream, call);
  } else if (held == 2) {
    launch<T, V, kWarp, 2>(stream, call);
  } else if (held == 3) {
    launch<T, V, kWarp, 3>(stream, call);
  } else if (held == 4) {
    launch<T, V, kWarp, 4>(stream, call);
  } else {
    launch<T, V, kWarp, kMostHeld>(stream, call);
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
