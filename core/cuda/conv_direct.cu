// Static and head-wise filters in bf16: a thread owns V neighbouring channels and walks down the
// rows of its chunk. Forward it keeps the last rows of x in registers; backward it also keeps the
// rows of dx that taps below may still add to, so x, dy and the generated filters are read once and
// dx is written once. Gradients of generated filters are summed over the lanes of a group.
#include "core/conv_shape.h"
#include "core/cuda/conv.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/partial_sums.cuh"
#include "core/cuda/reductions.cuh"

namespace convoy::cuda {
namespace {

constexpr int kThreads = 128;

constexpr int V = 4;  // channels of a thread

struct DirectCall {
  Rows<const bf16> x, dy, generated, s;
  const std::int32_t* reach;
  std::int64_t rows, chunk_rows;
  int channels, head_size;
  bool residual;
  bool whole_taps;  // the generated taps of a row and group may be moved as one
};

using Channels = Pack<bf16, V>;

__device__ inline void widen_channels(float (&to)[V], const Channels& pack) {
#pragma unroll
  for (int e = 0; e < V; ++e) to[e] = widen(pack.element[e]);
}

__device__ inline Channels narrow_channels(const float (&from)[V]) {
  Channels pack;
#pragma unroll
  for (int e = 0; e < V; ++e) pack.element[e] = narrow<bf16>(from[e]);
  return pack;
}

__device__ inline Channels row_or_zero(const Rows<const bf16>& from, std::int64_t t,
                                       std::int64_t rows, int channel) {
  if (t >= 0 && t < rows) return load_pack<V>(from.row(t) + channel);
  const float zero[V] = {};
  return narrow_channels(zero);
}

// The generated taps of a row and group, as they are stored.
template <int W, bool Generates>
struct GroupTaps {
  bf16 tap[W];

  __device__ void load(const DirectCall& call, std::int64_t t, int group) {
    if (!Generates) return;
    const bf16* from = call.generated.row(t) + group * W;
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
};

// The static taps of a thread's channels, the residual added to tap 0.
template <int W>
__device__ inline void load_static(float (&s)[W][V], const DirectCall& call, int channel) {
#pragma unroll
  for (int w = 0; w < W; ++w) widen_channels(s[w], load_pack<V>(call.s.row(w) + channel));
  if (!call.residual) return;
#pragma unroll
  for (int e = 0; e < V; ++e) s[0][e] += 1.0f;
}

// Rows loaded before the first of them is used; a multiple of the taps, so that the places of a
// window of W rows turn round within a batch.
template <int W>
constexpr int kAhead = W == 3 ? 3 : 4;

constexpr int kMostRows = 4;  // the largest kAhead

// A batch of rows on its way from memory.
template <int W, bool Generates, bool Backward>
struct Batch {
  static constexpr int kRows = kAhead<W>;
  Channels x[kRows], dy[Backward ? kRows : 1];
  GroupTaps<W, Generates> taps[kRows];
  std::int32_t reach[kRows];

  __device__ void load(const DirectCall& call, std::int64_t t0, int channel, int group) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      x[i] = row_or_zero(call.x, t0 + i, call.rows, channel);
      if (Backward) dy[i] = row_or_zero(call.dy, t0 + i, call.rows, channel);
      const std::int64_t row = min(t0 + i, call.rows - 1);
      taps[i].load(call, row, group);
      reach[i] = call.reach[row];
    }
  }
  // Whether no tap of these rows meets a document's start; the same for all threads of a block.
  __device__ bool whole() const {
    bool all = true;
#pragma unroll
    for (int i = 0; i < kRows; ++i) all = all && reach[i] >= W - 1;
    return all;
  }
};

template <int W, bool Generates>
struct ForwardWalk {
  float s[W][V];
  float seen[W][V];  // x[t] lies at place (t - first) % W

  template <bool Masked>
  __device__ void run(const Batch<W, Generates, false>& batch, Rows<bf16> y, std::int64_t t0,
                      std::int64_t end, int channel) {
#pragma unroll
    for (int i = 0; i < kAhead<W>; ++i) {
      float sum[V] = {};
      widen_channels(seen[i % W], batch.x[i]);
#pragma unroll
      for (int w = 0; w < W; ++w) {
        if (Masked && w > batch.reach[i]) continue;
        const float added = Generates ? widen(batch.taps[i].tap[w]) : 0.0f;
#pragma unroll
        for (int e = 0; e < V; ++e) {
          sum[e] += (Generates ? s[w][e] + added : s[w][e]) * seen[(i - w + W) % W][e];
        }
      }
      if (t0 + i < end) store_pack(y.row(t0 + i) + channel, narrow_channels(sum));
    }
  }
};

template <int W, bool Generates>
__global__ void __launch_bounds__(kThreads) forward_kernel(Rows<bf16> y, DirectCall call) {
  const int channel = (blockIdx.x * kThreads + threadIdx.x) * V;
  if (channel >= call.channels) return;
  const int group = channel / call.head_size;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  ForwardWalk<W, Generates> walk;
  load_static(walk.s, call, channel);
#pragma unroll
  for (int w = 1; w < W; ++w) {
    widen_channels(walk.seen[W - w], row_or_zero(call.x, first - w, call.rows, channel));
  }
  Batch<W, Generates, false> batch, coming;
  coming.load(call, first, channel, group);
  for (std::int64_t t0 = first; t0 < end; t0 += kAhead<W>) {
    batch = coming;
    coming.load(call, t0 + kAhead<W>, channel, group);
    if (batch.whole()) {
      walk.template run<false>(batch, y, t0, end, channel);
    } else {
      walk.template run<true>(batch, y, t0, end, channel);
    }
  }
}

// Adds the other half-group's values of the rows that this lane keeps: of `Count` rows, the lane
// with its bit `offset` set keeps the odd ones. Half as many rows remain.
template <int Count, int W>
__device__ inline void fold_rows(float (&x)[kMostRows][W], int offset) {
  const bool odd = (threadIdx.x & offset) != 0;
#pragma unroll
  for (int k = 0; k < Count / 2; ++k) {
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const float sent = odd ? x[2 * k][w] : x[2 * k + 1][w];
      const float kept = odd ? x[2 * k + 1][w] : x[2 * k][w];
      x[k][w] = kept + __shfl_xor_sync(~0u, sent, offset);
    }
  }
}

// Sums over the `lanes` neighbouring lanes of a group, a power of two, the taps of each of
// kAhead<W> rows. With four rows each lane ends with some of them; how many, and which: rows k *
// step + first.
struct KeptRows {
  int count, first, step;
};
template <int W>
__device__ inline KeptRows group_sums(float (&x)[kMostRows][W], int lanes) {
  int folded = 1;  // lanes already summed over
  KeptRows kept = {kAhead<W>, 0, 1};
  if constexpr (kAhead<W> == 4) {
    const int lane = threadIdx.x % kWarp;
    if (lanes >= 2) {
      fold_rows<4>(x, 1);
      kept = {2, lane & 1, 2};
      folded = 2;
    }
    if (lanes >= 4) {
      fold_rows<2>(x, 2);
      kept = {1, (lane & 1) + (lane & 2), 4};
      folded = 4;
    }
  }
  for (int offset = folded; offset < lanes; offset *= 2) {
#pragma unroll
    for (int k = 0; k < kAhead<W>; ++k) {
      if (k >= kept.count) break;
#pragma unroll
      for (int w = 0; w < W; ++w) x[k][w] += __shfl_xor_sync(~0u, x[k][w], offset);
    }
  }
  return kept;
}

template <int W>
__device__ inline void store_taps(bf16* to, const float (&sums)[W], bool whole) {
  if constexpr ((W & (W - 1)) == 0) {
    if (whole) {
      Pack<bf16, W> taps;
#pragma unroll
      for (int w = 0; w < W; ++w) taps.element[w] = narrow<bf16>(sums[w]);
      return store_pack(to, taps);
    }
  }
#pragma unroll
  for (int w = 0; w < W; ++w) to[w] = narrow<bf16>(sums[w]);
}

// Which channels and rows a thread of the backward pass has. Lanes past the channels stay for the
// sums over a group, which ends where the channels end.
template <int W>
struct Part {
  int channel, group, lanes;
  bool inside, stores;      // stores: its lane stores sums of its group
  std::int64_t first, end;  // rows

  __device__ Part(const DirectCall& call, bool generates) {
    const int own = (blockIdx.x * kThreads + threadIdx.x) * V;
    inside = own < call.channels;
    channel = inside ? own : 0;
    group = channel / call.head_size;
    lanes = generates ? call.head_size / V : 1;
    // One lane of the group stores a row: the first four, with a row each, where rows are folded.
    const int place = own % call.head_size / V;
    stores = inside && place < (kAhead<W> == 4 ? 4 : 1);
    first = blockIdx.y * call.chunk_rows;
    end = min(first + call.chunk_rows, call.rows);
  }
};

template <int W, bool Generates, bool Input, bool Weight>
struct BackwardWalk {
  float s[W][V];
  float seen[W][V];        // x[t] lies at place (t - first) % W
  float pending[W][V];     // dx[t] so far, at the same place
  float static_sum[W][V];  // ds

  template <bool Masked>
  __device__ void run(const Batch<W, Generates, true>& batch, const DirectCall& call, Rows<bf16> dx,
                      Rows<bf16> dgenerated, std::int64_t t0, const Part<W>& part) {
    float products[kMostRows][W];
#pragma unroll
    for (int i = 0; i < kAhead<W>; ++i) {
      const std::int64_t t = t0 + i;
      float dy[V];
      widen_channels(seen[i % W], batch.x[i]);
      widen_channels(dy, batch.dy[i]);
#pragma unroll
      for (int w = 0; w < W; ++w) products[i][w] = 0;
#pragma unroll
      for (int e = 0; e < V; ++e) pending[i % W][e] = 0;
      const bool counts = t < part.end;  // rows after the chunk add to dx alone
#pragma unroll
      for (int w = 0; w < W; ++w) {
        if (Masked && w > batch.reach[i]) continue;
        const float added = Generates && Input ? widen(batch.taps[i].tap[w]) : 0.0f;
#pragma unroll
        for (int e = 0; e < V; ++e) {
          const float source = seen[(i - w + W) % W][e];
          if (Input) {
            pending[(i - w + W) % W][e] += (Generates ? s[w][e] + added : s[w][e]) * dy[e];
          }
          if (Input && Generates) products[i][w] += dy[e] * source;
          if (Weight && counts) static_sum[w][e] += dy[e] * source;
        }
      }
      if (!Input) continue;
      const std::int64_t done = t - (W - 1);  // no row after t adds to it
      if (part.inside && done >= part.first && done < part.end) {
        store_pack(dx.row(done) + part.channel, narrow_channels(pending[(i + 1) % W]));
      }
    }
    if (!Generates || !Input) return;
    const KeptRows kept = group_sums<W>(products, part.lanes);
#pragma unroll
    for (int k = 0; k < kAhead<W>; ++k) {
      if (k >= kept.count || !part.stores) break;
      const std::int64_t t = t0 + k * kept.step + kept.first;
      if (t >= part.end) continue;
      store_taps<W>(dgenerated.row(t) + part.group * W, products[k], call.whole_taps);
    }
  }
};

// Rows first .. end - 1 of dx are this block's; taps of up to W - 1 rows after them add to them.
template <int W, bool Generates, bool Input, bool Weight>
__global__ void __launch_bounds__(kThreads, 3)
    backward_kernel(Rows<bf16> dx, Rows<bf16> dgenerated, float* partial, DirectCall call) {
  const Part<W> part(call, Generates);
  BackwardWalk<W, Generates, Input, Weight> walk;
  load_static(walk.s, call, part.channel);
#pragma unroll
  for (int w = 0; w < W; ++w) {
#pragma unroll
    for (int e = 0; e < V; ++e) walk.pending[w][e] = walk.static_sum[w][e] = 0;
  }
#pragma unroll
  for (int w = 1; w < W; ++w) {
    widen_channels(walk.seen[W - w], row_or_zero(call.x, part.first - w, call.rows, part.channel));
  }
  Batch<W, Generates, true> batch, coming;
  coming.load(call, part.first, part.channel, part.group);
  const std::int64_t stop = Input ? part.end + W - 1 : part.end;
  for (std::int64_t t0 = part.first; t0 < stop; t0 += kAhead<W>) {
    batch = coming;
    coming.load(call, t0 + kAhead<W>, part.channel, part.group);
    if (batch.whole()) {
      walk.template run<false>(batch, call, dx, dgenerated, t0, part);
    } else {
      walk.template run<true>(batch, call, dx, dgenerated, t0, part);
    }
  }
  if (!Weight || !part.inside) return;
#pragma unroll
  for (int w = 0; w < W; ++w) {
    float* place = partial + (blockIdx.y * std::int64_t{W} + w) * call.channels + part.channel;
#pragma unroll
    for (int e = 0; e < V; ++e) place[e] = walk.static_sum[w][e];
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

// A thread's channels must lie inside a group, and groups inside a warp.
bool takes(const ConvCall& call, std::initializer_list<Tensor> tensors) {
  constexpr int kBytes = V * 2;
  if (tensors.begin()->dtype() != DType::bf16 || call.shape.width > 4) return false;
  if (!call.rows.halo.empty() || !packable(kBytes, tensors)) return false;
  if (!packable(kBytes, {call.filters.s})) return false;
  if (call.shape.kind == FilterKind::fixed) return true;
  const std::int64_t lanes = call.shape.head_size / V;
  return call.shape.head_size % V == 0 && lanes <= kWarp && (lanes & (lanes - 1)) == 0;
}

DirectCall describe(const ConvCall& call, const Tensor& x, const Tensor& dy,
                    std::int64_t chunk_rows, const Tensor& dgenerated = {}) {
  const bool generates = call.shape.kind == FilterKind::headwise;
  const int bytes = call.shape.width * 2;
  const bool whole = generates && packable(bytes, {call.filters.generated}) &&
                     (dgenerated.empty() || packable(bytes, {dgenerated}));
  return {read_rows<bf16>(x),
          read_rows<bf16>(dy),
          read_rows<bf16>(call.filters.generated),
          read_rows<bf16>(call.filters.s),
          call.rows.reach.data<std::int32_t>(),
          x.rows(),
          chunk_rows,
          static_cast<int>(x.cols()),
          generates ? static_cast<int>(call.shape.head_size) : static_cast<int>(x.cols()),
          call.shape.residual,
          whole};
}

dim3 grid_of(const DirectCall& call) {
  return {static_cast<unsigned>(ceil_div(ceil_div(call.channels, V), kThreads)),
          static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows))};
}

template <int W, bool Generates>
auto backward_kernel_for(ConvWants wants) {
  switch (wants) {
    case ConvWants::input: return backward_kernel<W, Generates, true, false>;
    case ConvWants::weight: return backward_kernel<W, Generates, false, true>;
    case ConvWants::both: break;
  }
  return backward_kernel<W, Generates, true, true>;
}

}  // namespace

bool direct_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  constexpr std::int64_t kChunk = 64;  // rows
  if (!takes(call, {x, y})) return false;
  const std::int64_t chunk = std::max(kChunk, ceil_div<std::int64_t>(x.rows(), 65535));
  const DirectCall c = describe(call, x, {}, chunk);
  dispatch_width(call.shape.width, [&]<int W>() {
    const auto kernel = call.shape.kind == FilterKind::headwise ? forward_kernel<W, true>
                                                                : forward_kernel<W, false>;
    kernel<<<grid_of(c), kThreads, 0, call.stream>>>(rows_of<bf16>(y), c);
  });
  check_launch();
  return true;
}

bool direct_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                          ConvWants wants) {
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  constexpr std::int64_t kChunk = 128;  // rows
  if (!takes(call, {x, dy}) || (input && !packable(V * 2, {g.dx}))) return false;
  const std::int64_t chunk = std::max(kChunk, ceil_div<std::int64_t>(x.rows(), 512));
  const DirectCall c = describe(call, x, dy, chunk, g.dgenerated);
  const dim3 grid = grid_of(c);
  const std::int64_t count = call.shape.width * x.cols();
  call.workspace.begin(static_cast<std::size_t>(grid.y * count) * sizeof(float));
  auto* partial = call.workspace.take<float>(weight ? grid.y * count : 0);
  dispatch_width(call.shape.width, [&]<int W>() {
    const auto kernel = call.shape.kind == FilterKind::headwise
                            ? backward_kernel_for<W, true>(wants)
                            : backward_kernel_for<W, false>(wants);
    kernel<<<grid, kThreads, 0, call.stream>>>(rows_of<bf16>(g.dx), rows_of<bf16>(g.dgenerated),
                                               partial, c);
  });
  if (weight) {
    add_conv_weights(data_of<float>(g.ds), static_cast<float*>(nullptr), partial, count, count,
                     grid.y, call.stream);
  }
  check_launch();
  return true;
}

}  // namespace convoy::cuda
