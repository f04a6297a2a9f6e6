// Static and head-wise filters: a thread owns V neighbouring channels and walks down the rows of
// its chunk. Forward it keeps the last rows of x in registers; backward it also keeps the rows of
// dx that taps below may still add to, so x, dy and the generated filters are read once and dx is
// written once. Gradients of generated filters are summed over the lanes of a group.
#include "core/conv_shape.h"
#include "core/cuda/conv.h"
#include "core/cuda/conv_weights.cuh"
#include "core/cuda/elements.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
struct DirectCall {
  Rows<const T> x, dy, generated;  // generated.data is null for static filters
  Rows<const T> s;
  const std::int32_t* reach;
  std::int64_t rows, chunk_rows;
  int channels, head_size;
  bool residual;
  bool whole_taps;  // the generated taps of a row and group may be moved as one
};

template <class T, int V>
__device__ inline void widen_pack(Wide<T> (&to)[V], const Pack<T, V>& pack) {
#pragma unroll
  for (int e = 0; e < V; ++e) to[e] = widen(pack.element[e]);
}

template <class T, int V>
__device__ inline Pack<T, V> row_or_zero(const Rows<const T>& from, std::int64_t t,
                                         std::int64_t rows, int channel) {
  if (t >= 0 && t < rows) return load_pack<V>(from.row(t) + channel);
  Pack<T, V> zero;
#pragma unroll
  for (int e = 0; e < V; ++e) zero.element[e] = narrow<T>(0);
  return zero;
}

// The generated taps of a row and group, as they are stored.
template <class T, int W>
struct GroupTaps {
  T tap[W];

  __device__ void load(const DirectCall<T>& call, std::int64_t t, int group) {
    if (call.generated.data == nullptr) return;
    const T* from = call.generated.row(t) + group * W;
    if constexpr ((W & (W - 1)) == 0) {
      if (call.whole_taps) {
        const auto pack = load_pack<W>(from);
#pragma unroll
        for (int w = 0; w < W; ++w) tap[w] = pack.element[w];
        return;
      }
    }
#pragma unroll
    for (int w = 0; w < W; ++w) tap[w] = from[w];
  }
  // What the taps of the group gain on the static ones: these, and the residual on tap 0.
  __device__ void widen_to(Wide<T> (&added)[W], const DirectCall<T>& call) const {
#pragma unroll
    for (int w = 0; w < W; ++w) {
      added[w] = call.generated.data == nullptr ? Wide<T>(0) : widen(tap[w]);
    }
    if (call.residual) added[0] += Wide<T>(1);
  }
};

// The static taps of a thread's channels.
template <class T, int W, int V>
__device__ inline void load_static(Wide<T> (&s)[W][V], const DirectCall<T>& call, int channel) {
#pragma unroll
  for (int w = 0; w < W; ++w) widen_pack<T, V>(s[w], load_pack<V>(call.s.row(w) + channel));
}

// Rows loaded before the first of them is used; a multiple of the taps, so that the places of a
// window of W rows turn round within a batch.
template <int W>
constexpr int kAhead = W == 3 ? 3 : 4;

// A batch of rows on its way from memory.
template <class T, int W, int V, bool Backward>
struct Batch {
  static constexpr int kRows = kAhead<W>;
  Pack<T, V> x[kRows], dy[Backward ? kRows : 1];
  GroupTaps<T, W> taps[kRows];
  std::int32_t reach[kRows];

  __device__ void load(const DirectCall<T>& call, std::int64_t t0, int channel, int group) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      x[i] = row_or_zero<T, V>(call.x, t0 + i, call.rows, channel);
      if (Backward) dy[i] = row_or_zero<T, V>(call.dy, t0 + i, call.rows, channel);
      const std::int64_t row = min(t0 + i, call.rows - 1);
      taps[i].load(call, row, group);
      reach[i] = call.reach[row];
    }
  }
};

template <class T, int W, int V>
__global__ void __launch_bounds__(kThreads) forward_kernel(Rows<T> y, DirectCall<T> call) {
  using A = Wide<T>;
  constexpr int kRows = kAhead<W>;
  const int channel = (blockIdx.x * kThreads + threadIdx.x) * V;
  if (channel >= call.channels) return;
  const int group = channel / call.head_size;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  A s[W][V], seen[W][V];  // x[t] lies at place (t - first) % W
  load_static<T, W, V>(s, call, channel);
#pragma unroll
  for (int w = 1; w < W; ++w) {
    widen_pack<T, V>(seen[W - w], row_or_zero<T, V>(call.x, first - w, call.rows, channel));
  }
  Batch<T, W, V, false> batch, coming;
  coming.load(call, first, channel, group);
  for (std::int64_t t0 = first; t0 < end; t0 += kRows) {
    batch = coming;
    coming.load(call, t0 + kRows, channel, group);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      A added[W], sum[V] = {};
      widen_pack<T, V>(seen[i % W], batch.x[i]);
      batch.taps[i].widen_to(added, call);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        const A keep = w <= batch.reach[i] ? A(1) : A(0);
#pragma unroll
        for (int e = 0; e < V; ++e) {
          sum[e] += (s[w][e] + added[w]) * keep * seen[(i - w + W) % W][e];
        }
      }
      if (t0 + i >= end) continue;
      Pack<T, V> result;
#pragma unroll
      for (int e = 0; e < V; ++e) result.element[e] = narrow<T>(sum[e]);
      store_pack(y.row(t0 + i) + channel, result);
    }
  }
}

// Sums each of the values over the `lanes` neighbouring lanes of a group, a power of two.
template <class A, int W>
__device__ inline void group_sums(A (&x)[W], int lanes) {
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    if (offset >= lanes) break;
#pragma unroll
    for (int w = 0; w < W; ++w) x[w] += __shfl_xor_sync(~0u, x[w], offset);
  }
}

template <class T, int W>
__device__ inline void store_taps(T* to, const Wide<T> (&sums)[W], bool whole) {
  if constexpr ((W & (W - 1)) == 0) {
    if (whole) {
      Pack<T, W> taps;
#pragma unroll
      for (int w = 0; w < W; ++w) taps.element[w] = narrow<T>(sums[w]);
      return store_pack(to, taps);
    }
  }
#pragma unroll
  for (int w = 0; w < W; ++w) to[w] = narrow<T>(sums[w]);
}

// Rows first .. end - 1 of dx are this block's; taps of up to W - 1 rows after them add to them.
template <class T, int W, int V, bool Input, bool Weight>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows<T> dx, Rows<T> dgenerated, Wide<T>* partial, DirectCall<T> call) {
  using A = Wide<T>;
  constexpr int kRows = kAhead<W>;
  // Lanes past the channels stay for the sums over a group, which ends where the channels end.
  const int own = (blockIdx.x * kThreads + threadIdx.x) * V;
  const bool inside = own < call.channels;
  const int channel = inside ? own : 0;
  const int group = channel / call.head_size;
  const bool generates = call.generated.data != nullptr;
  const int lanes = generates ? call.head_size / V : 1;
  const bool leads = inside && own % call.head_size == 0;  // its group
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  A s[W][V], seen[W][V];  // x[t] lies at place (t - first) % W
  A pending[W][V] = {};   // dx[t] so far, at the same place
  A static_sum[W][V] = {};
  load_static<T, W, V>(s, call, channel);
#pragma unroll
  for (int w = 1; w < W; ++w) {
    widen_pack<T, V>(seen[W - w], row_or_zero<T, V>(call.x, first - w, call.rows, channel));
  }
  Batch<T, W, V, true> batch, coming;
  coming.load(call, first, channel, group);
  const std::int64_t stop = Input ? end + W - 1 : end;
  for (std::int64_t t0 = first; t0 < stop; t0 += kRows) {
    batch = coming;
    coming.load(call, t0 + kRows, channel, group);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const std::int64_t t = t0 + i;
      A dy[V], added[W], products[W] = {};
      widen_pack<T, V>(seen[i % W], batch.x[i]);
      widen_pack<T, V>(dy, batch.dy[i]);
      batch.taps[i].widen_to(added, call);
#pragma unroll
      for (int e = 0; e < V; ++e) pending[i % W][e] = 0;
      const bool counts = t < end;  // rows after the chunk add to dx alone
#pragma unroll
      for (int w = 0; w < W; ++w) {
        const A keep = w <= batch.reach[i] ? A(1) : A(0);
#pragma unroll
        for (int e = 0; e < V; ++e) {
          const A d = dy[e] * keep;
          if (Input) pending[(i - w + W) % W][e] += (s[w][e] + added[w]) * d;
          if (Input) products[w] += d * seen[(i - w + W) % W][e];
          if (Weight && counts) static_sum[w][e] += d * seen[(i - w + W) % W][e];
        }
      }
      if (!Input) continue;
      if (generates) {
        group_sums(products, lanes);
        if (leads && counts) {
          store_taps<T, W>(dgenerated.row(t) + group * W, products, call.whole_taps);
        }
      }
      const std::int64_t done = t - (W - 1);  // no row after t adds to it
      if (!inside || done < first || done >= end) continue;
      Pack<T, V> result;
#pragma unroll
      for (int e = 0; e < V; ++e) result.element[e] = narrow<T>(pending[(i + 1) % W][e]);
      store_pack(dx.row(done) + channel, result);
    }
  }
  if (!Weight || !inside) return;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    A* place = partial + (blockIdx.y * std::int64_t{W} + w) * call.channels + channel;
#pragma unroll
    for (int e = 0; e < V; ++e) place[e] = static_sum[w][e];
  }
}

template <class Function>
void dispatch_width(int width, Function&& run) {
  switch (width) {
    case 1: return run.template operator()<1>();
    case 2: return run.template operator()<2>();
    case 3: return run.template operator()<3>();
    case 4: return run.template operator()<4>();
    default: CHECK(false, "a convolution of ", width, " taps");
  }
}

// Packs of `pack` channels must lie inside a group, and groups inside a warp.
bool takes(const ConvCall& call, int pack, std::initializer_list<Tensor> tensors) {
  const DType dtype = tensors.begin()->dtype();
  const int bytes = pack * static_cast<int>(size_of(dtype));
  if (dtype == DType::f64 || call.shape.width > 4 || !call.rows.halo.empty()) return false;
  if (!packable(bytes, tensors) || !packable(bytes, {call.filters.s})) return false;
  if (call.shape.kind == FilterKind::fixed) return true;
  const std::int64_t lanes = call.shape.head_size / pack;
  return call.shape.head_size % pack == 0 && lanes <= kWarp && (lanes & (lanes - 1)) == 0;
}

template <class T>
DirectCall<T> describe(const ConvCall& call, const Tensor& x, const Tensor& dy,
                       std::int64_t chunk_rows, const Tensor& dgenerated = {}) {
  const bool generates = call.shape.kind == FilterKind::headwise;
  const int bytes = call.shape.width * static_cast<int>(sizeof(T));
  const bool whole = generates && packable(bytes, {call.filters.generated}) &&
                     (dgenerated.empty() || packable(bytes, {dgenerated}));
  return {read_rows<T>(x),
          read_rows<T>(dy),
          generates ? read_rows<T>(call.filters.generated) : Rows<const T>{},
          read_rows<T>(call.filters.s),
          call.rows.reach.data<std::int32_t>(),
          x.rows(),
          chunk_rows,
          static_cast<int>(x.cols()),
          generates ? static_cast<int>(call.shape.head_size) : static_cast<int>(x.cols()),
          call.shape.residual,
          whole};
}

template <class T>
dim3 grid_of(const DirectCall<T>& call, int pack) {
  return {static_cast<unsigned>(ceil_div(ceil_div(call.channels, pack), kThreads)),
          static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows))};
}

// Calls run.template operator()<T>() with float or bf16.
template <class Function>
void dispatch_single(DType dtype, Function&& run) {
  if (dtype == DType::bf16) return run.template operator()<bf16>();
  run.template operator()<float>();
}

}  // namespace

bool direct_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  constexpr std::int64_t kChunk = 64;  // rows
  constexpr int V = 4;
  if (!takes(call, V, {x, y})) return false;
  const std::int64_t chunk = std::max(kChunk, ceil_div<std::int64_t>(x.rows(), 65535));
  dispatch_single(x.dtype(), [&]<class T>() {
    dispatch_width(call.shape.width, [&]<int W>() {
      const auto c = describe<T>(call, x, {}, chunk);
      forward_kernel<T, W, V><<<grid_of(c, V), kThreads, 0, call.stream>>>(rows_of<T>(y), c);
    });
  });
  check_launch();
  return true;
}

bool direct_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                          ConvWants wants) {
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  constexpr std::int64_t kChunk = 128;  // rows
  constexpr int V = 4;
  if (!takes(call, V, {x, dy})) return false;
  if (input && !packable(V * static_cast<int>(size_of(x.dtype())), {g.dx})) return false;
  const std::int64_t chunk = std::max(kChunk, ceil_div<std::int64_t>(x.rows(), 512));
  dispatch_single(x.dtype(), [&]<class T>() {
    dispatch_width(call.shape.width, [&]<int W>() {
      const auto c = describe<T>(call, x, dy, chunk, g.dgenerated);
      const dim3 grid = grid_of(c, V);
      const std::int64_t count = W * x.cols();
      call.workspace.begin(static_cast<std::size_t>(grid.y * count) * sizeof(float));
      auto* partial = call.workspace.take<float>(weight ? grid.y * count : 0);
      const auto kernel = input && weight ? backward_kernel<T, W, V, true, true>
                          : input         ? backward_kernel<T, W, V, true, false>
                                          : backward_kernel<T, W, V, false, true>;
      kernel<<<grid, kThreads, 0, call.stream>>>(rows_of<T>(g.dx), rows_of<T>(g.dgenerated),
                                                 partial, c);
      if (!weight) return;
      add_conv_weights<float>(data_of<float>(g.ds), nullptr, partial, count, count, grid.y,
                              call.stream);
    });
  });
  check_launch();
  return true;
}

}  // namespace convoy::cuda
