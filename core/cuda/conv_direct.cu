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

// The generated taps of a row and group, plus the residual on tap 0.
template <class T, int W>
__device__ inline void load_added(Wide<T> (&added)[W], const DirectCall<T>& call, std::int64_t t,
                                  int group) {
#pragma unroll
  for (int w = 0; w < W; ++w) {
    added[w] = call.generated.data == nullptr
                   ? Wide<T>(0)
                   : widen(call.generated.row(t)[group * W + w]);
  }
  if (call.residual) added[0] += Wide<T>(1);
}

// The static taps of a thread's channels.
template <class T, int W, int V>
__device__ inline void load_static(Wide<T> (&s)[W][V], const DirectCall<T>& call, int channel) {
#pragma unroll
  for (int w = 0; w < W; ++w) widen_pack<T, V>(s[w], load_pack<V>(call.s.row(w) + channel));
}

constexpr int kAhead = 4;  // rows loaded before the first of them is used

template <class T, int W, int V>
__global__ void __launch_bounds__(kThreads) forward_kernel(Rows<T> y, DirectCall<T> call) {
  using A = Wide<T>;
  const int channel = (blockIdx.x * kThreads + threadIdx.x) * V;
  if (channel >= call.channels) return;
  const int group = channel / call.head_size;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  A s[W][V], seen[W - 1 + kAhead][V];  // seen[W - 1 + i - w] = x[t + i - w]
  load_static<T, W, V>(s, call, channel);
#pragma unroll
  for (int i = 0; i < W - 1; ++i) {
    widen_pack<T, V>(seen[i], row_or_zero<T, V>(call.x, first - (W - 1) + i, call.rows, channel));
  }
  for (std::int64_t t = first; t < end; t += kAhead) {
    A added[kAhead][W];
    std::int32_t reach[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      widen_pack<T, V>(seen[W - 1 + i], row_or_zero<T, V>(call.x, t + i, call.rows, channel));
      const std::int64_t row = min(t + i, call.rows - 1);
      load_added<T, W>(added[i], call, row, group);
      reach[i] = call.reach[row];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (t + i >= end) break;
      A sum[V] = {};
#pragma unroll
      for (int w = 0; w < W; ++w) {
        if (w > reach[i]) break;
#pragma unroll
        for (int e = 0; e < V; ++e) sum[e] += (s[w][e] + added[i][w]) * seen[W - 1 + i - w][e];
      }
      Pack<T, V> result;
#pragma unroll
      for (int e = 0; e < V; ++e) result.element[e] = narrow<T>(sum[e]);
      store_pack(y.row(t + i) + channel, result);
    }
#pragma unroll
    for (int i = 0; i < W - 1; ++i) {
#pragma unroll
      for (int e = 0; e < V; ++e) seen[i][e] = seen[kAhead + i][e];
    }
  }
}

// Sums over the `lanes` neighbouring lanes of a group, a power of two.
template <class A>
__device__ inline A group_sum(A x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// Rows first .. end - 1 of dx are this block's; taps of up to W - 1 rows after them add to them.
template <class T, int W, int V, bool Input, bool Weight>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(Rows<T> dx, Rows<T> dgenerated, Wide<T>* partial, DirectCall<T> call) {
  using A = Wide<T>;
  // Lanes past the channels stay for the sums over a group, which ends where the channels end.
  const int own = (blockIdx.x * kThreads + threadIdx.x) * V;
  const bool inside = own < call.channels;
  const int channel = inside ? own : 0;
  const int group = channel / call.head_size;
  const int lanes = call.generated.data == nullptr ? 1 : call.head_size / V;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  A s[W][V], seen[W][V];      // seen[w] = x[t - w]
  A pending[W][V] = {};       // pending[w] = dx[t - w] so far
  A static_sum[W][V] = {};
  load_static<T, W, V>(s, call, channel);
#pragma unroll
  for (int w = 1; w < W; ++w) {
    widen_pack<T, V>(seen[w - 1], row_or_zero<T, V>(call.x, first - w, call.rows, channel));
  }
  const std::int64_t stop = Input ? end + W - 1 : end;
  for (std::int64_t t0 = first; t0 < stop; t0 += kAhead) {
    Pack<T, V> xs[kAhead], dys[kAhead];
    A added[kAhead][W];
    std::int32_t reach[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      xs[i] = row_or_zero<T, V>(call.x, t0 + i, call.rows, channel);
      dys[i] = row_or_zero<T, V>(call.dy, t0 + i, call.rows, channel);
      const std::int64_t row = min(t0 + i, call.rows - 1);
      if (Input) load_added<T, W>(added[i], call, row, group);
      reach[i] = call.reach[row];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const std::int64_t t = t0 + i;
      if (t >= stop) break;
#pragma unroll
      for (int w = W - 1; w > 0; --w) {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          seen[w][e] = seen[w - 1][e];
          pending[w][e] = pending[w - 1][e];
        }
      }
      A dy[V];
      widen_pack<T, V>(seen[0], xs[i]);
      widen_pack<T, V>(dy, dys[i]);
#pragma unroll
      for (int e = 0; e < V; ++e) pending[0][e] = 0;
      A products[W] = {};
#pragma unroll
      for (int w = 0; w < W; ++w) {
        if (w > reach[i]) break;
#pragma unroll
        for (int e = 0; e < V; ++e) {
          if (Input) pending[w][e] += (s[w][e] + added[i][w]) * dy[e];
          if (t < end) {
            const A product = dy[e] * seen[w][e];
            if (Input) products[w] += product;
            if (Weight) static_sum[w][e] += product;
          }
        }
      }
      if (!Input) continue;
      if (call.generated.data != nullptr && t < end) {
#pragma unroll
        for (int w = 0; w < W; ++w) {
          const A sum = group_sum(products[w], lanes);
          if (inside && own % call.head_size == 0) {
            dgenerated.row(t)[group * W + w] = narrow<T>(sum);
          }
        }
      }
      const std::int64_t done = t - (W - 1);  // no row after t adds to it
      if (!inside || done < first || done >= end) continue;
      Pack<T, V> result;
#pragma unroll
      for (int e = 0; e < V; ++e) result.element[e] = narrow<T>(pending[W - 1][e]);
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
                       std::int64_t chunk_rows) {
  const bool generates = call.shape.kind == FilterKind::headwise;
  return {read_rows<T>(x),
          read_rows<T>(dy),
          generates ? read_rows<T>(call.filters.generated) : Rows<const T>{},
          read_rows<T>(call.filters.s),
          call.rows.reach.data<std::int32_t>(),
          x.rows(),
          chunk_rows,
          static_cast<int>(x.cols()),
          generates ? static_cast<int>(call.shape.head_size) : static_cast<int>(x.cols()),
          call.shape.residual};
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
      const auto c = describe<T>(call, x, dy, chunk);
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
