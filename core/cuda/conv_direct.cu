// Static and head-wise filters in bf16: a lane owns 4 neighbouring channels and walks down the rows
// of its block. Forward it keeps the last rows of x in registers; backward it also keeps the rows
// of dx that taps below may still add to, so x, dy and the generated filters are read once and dx
// is written once. Gradients of generated filters are summed over the lanes of a group, those of s
// by blocks of rows that are then added in order.
#include <bit>

#include "core/conv_shape.h"
#include "core/cuda/conv.h"
#include "core/cuda/conv_direct_rows.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/partial_sums.cuh"

namespace convoy::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kBlockChannels = kThreads * V;
constexpr int kForwardStages = 6, kBackwardStages = 4;
constexpr int kResident = 4;  // blocks an SM

constexpr int kMostRows = 4;  // the largest kBatchRows

// A window of the last W rows: that of row t lies at place (t - first) % W.
template <int W>
__device__ inline void load_window(float (&seen)[W][V], const DirectCall& call,
                                   const LanePart& part) {
#pragma unroll
  for (int w = 1; w < W; ++w) {
    widen_channels(seen[W - w], row_or_zero(call.x, part.first - w, call.rows, part.channel));
  }
}

template <int W, bool Generates>
struct ForwardWalk {
  float s[W][V];
  float seen[W][V];

  template <bool Masked>
  __device__ void run(const LaneRows<W, Generates, false>& batch, const ReachAhead& reach, bf16* y,
                      std::int64_t stride, int left, bool inside) {
#pragma unroll
    for (int i = 0; i < kBatchRows<W>; ++i) {
      float sum[V] = {};
      widen_channels(seen[i % W], batch.x[i]);
      const int reached = Masked ? reach.of(i) : W;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        if (Masked && w > reached) continue;
        const float added = Generates ? batch.tap(i, w) : 0.0f;
#pragma unroll
        for (int e = 0; e < V; ++e) {
          sum[e] += (Generates ? s[w][e] + added : s[w][e]) * seen[(i - w + W) % W][e];
        }
      }
      if (inside && i < left) store_channels(y + i * stride, sum);
    }
  }
};

template <int W, bool Generates>
__global__ void __launch_bounds__(kThreads, kResident)
    forward_kernel(Rows<bf16> y, const __grid_constant__ DirectCall call) {
  extern __shared__ __align__(16) char memory[];
  const LanePart part(call);
  wait_for_previous();
  allow_next();
  if (part.first_channel >= call.channels) return;
  WarpRing<W, Generates, false, kForwardStages> ring(call, part, shared_address(memory), part.end);
  ReachAhead reach(call, part.first);
  ForwardWalk<W, Generates> walk;
  load_static(walk.s, call, part.channel);
  load_window(walk.seen, call, part);
  bf16* to = y.row(part.first) + part.channel;
  for (int t0 = part.first; t0 < part.end; t0 += kBatchRows<W>) {
    LaneRows<W, Generates, false> batch;
    ring.next(batch, t0);
    reach.next(t0 + kBatchRows<W>);
    if (reach.all(W)) {
      walk.template run<false>(batch, reach, to, y.stride, part.end - t0, part.inside);
    } else {
      walk.template run<true>(batch, reach, to, y.stride, part.end - t0, part.inside);
    }
    to += kBatchRows<W> * y.stride;
  }
  wait_copies<0>();
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
// kBatchRows<W> rows. With four rows each lane ends with some of them; how many, and which: rows k
// * step + first.
struct KeptRows {
  int count, first, step;
};
template <int W>
__device__ inline KeptRows group_sums(float (&x)[kMostRows][W], int lanes) {
  int folded = 1;  // lanes already summed over
  KeptRows kept = {kBatchRows<W>, 0, 1};
  if constexpr (kBatchRows<W> == 4) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
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
    for (int k = 0; k < kBatchRows<W>; ++k) {
      if (k >= kept.count) break;
#pragma unroll
      for (int w = 0; w < W; ++w) x[k][w] += __shfl_xor_sync(~0u, x[k][w], offset);
    }
  }
  return kept;
}

template <int W>
__device__ inline void store_taps(bf16* to, const float (&sums)[W]) {
  if constexpr (kTapsTravel<W>) {
    Pack<bf16, W> taps;
#pragma unroll
    for (int w = 0; w < W; ++w) taps.element[w] = narrow<bf16>(sums[w]);
    store_pack(to, taps);
  } else {
#pragma unroll
    for (int w = 0; w < W; ++w) to[w] = narrow<bf16>(sums[w]);
  }
}

template <int W, bool Generates, bool Input, bool Weight>
struct BackwardWalk {
  float s[W][V];
  float seen[W][V];
  float pending[W][V];     // dx[t] so far, at the place of x[t]
  float static_sum[W][V];  // ds

  // partial [chunks of rows, W, channels]
  __device__ void store_static(float* partial, const DirectCall& call, int channel) const {
#pragma unroll
    for (int w = 0; w < W; ++w) {
      float* place = partial + (blockIdx.y * std::int64_t{W} + w) * call.channels + channel;
      *reinterpret_cast<float4*>(place) = {static_sum[w][0], static_sum[w][1], static_sum[w][2],
                                           static_sum[w][3]};
    }
  }

  // dx_first and dgenerated_first: the addresses for row t0.
  template <bool Masked>
  __device__ void run(const LaneRows<W, Generates, true>& batch, const ReachAhead& reach,
                      const DirectCall& call, const LanePart& part, int t0, bf16* dx_first,
                      std::int64_t dx_stride, bf16* dgenerated_first,
                      std::int64_t dgenerated_stride) {
    float products[kMostRows][W];
#pragma unroll
    for (int i = 0; i < kBatchRows<W>; ++i) {
      const int t = t0 + i;
      float dy[V];
      widen_channels(seen[i % W], batch.x[i]);
      widen_channels(dy, batch.dy[i]);
#pragma unroll
      for (int w = 0; w < W; ++w) products[i][w] = 0;
#pragma unroll
      for (int e = 0; e < V; ++e) pending[i % W][e] = 0;
      const bool counts = t < part.end;  // rows after the block's add to dx alone
      const int reached = Masked ? reach.of(i) : W;
#pragma unroll
      for (int w = 0; w < W; ++w) {
        if (Masked && w > reached) continue;
        const float added = Generates && Input ? batch.tap(i, w) : 0.0f;
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
      const int done = t - (W - 1);  // no row after t adds to it
      if (part.inside && done >= part.first && done < part.end) {
        store_channels(dx_first + (i - (W - 1)) * dx_stride, pending[(i + 1) % W]);
      }
    }
    if (!Generates || !Input) return;
    // One lane of the group stores a row: the first four, with a row each, where rows are folded.
    const int lanes = 1 << call.lane_shift;
    const bool stores = part.inside && (part.lane & (lanes - 1)) < (kBatchRows<W> == 4 ? 4 : 1);
    const KeptRows kept = group_sums<W>(products, lanes);
#pragma unroll
    for (int k = 0; k < kBatchRows<W>; ++k) {
      if (k >= kept.count || !stores) break;
      const int row = k * kept.step + kept.first;
      if (t0 + row >= part.end) continue;
      store_taps<W>(dgenerated_first + row * dgenerated_stride, products[k]);
    }
  }
};

// Rows first .. end - 1 of dx are this block's; taps of up to W - 1 rows after them add to them.
template <int W, bool Generates, bool Input, bool Weight>
__global__ void __launch_bounds__(kThreads, kResident)
    backward_kernel(Rows<bf16> dx, Rows<bf16> dgenerated, float* partial,
                    const __grid_constant__ DirectCall call) {
  extern __shared__ __align__(16) char memory[];
  const LanePart part(call);
  wait_for_previous();
  allow_next();
  if (part.first_channel >= call.channels) return;
  const int stop = Input ? part.end + W - 1 : part.end;
  WarpRing<W, Generates, true, kBackwardStages> ring(call, part, shared_address(memory),
                                                     min(stop, call.rows));
  ReachAhead reach(call, part.first);
  BackwardWalk<W, Generates, Input, Weight> walk;
  load_static(walk.s, call, part.channel);
#pragma unroll
  for (int w = 0; w < W; ++w) {
#pragma unroll
    for (int e = 0; e < V; ++e) walk.pending[w][e] = walk.static_sum[w][e] = 0;
  }
  load_window(walk.seen, call, part);
  bf16* dx_row = Input ? dx.row(part.first) + part.channel : nullptr;
  bf16* dgenerated_row = Input && Generates ? dgenerated.row(part.first) + part.group * W : nullptr;
  for (int t0 = part.first; t0 < stop; t0 += kBatchRows<W>) {
    LaneRows<W, Generates, true> batch;
    ring.next(batch, t0);
    reach.next(t0 + kBatchRows<W>);
    if (reach.all(W)) {
      walk.template run<false>(batch, reach, call, part, t0, dx_row, dx.stride, dgenerated_row,
                               dgenerated.stride);
    } else {
      walk.template run<true>(batch, reach, call, part, t0, dx_row, dx.stride, dgenerated_row,
                              dgenerated.stride);
    }
    dx_row += kBatchRows<W> * dx.stride;
    dgenerated_row += kBatchRows<W> * dgenerated.stride;
  }
  wait_copies<0>();
  if constexpr (Weight) {
    if (part.inside) walk.store_static(partial, call, part.channel);
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

// Rows and filters move in packs of 16 bytes and a group's taps as one, a lane's channels lie
// inside a group, and groups lie inside a warp.
bool takes(const ConvCall& call, std::initializer_list<Tensor> tensors,
           const Tensor& dgenerated = {}) {
  if (tensors.begin()->dtype() != DType::bf16 || call.shape.width > 4) return false;
  if (!call.rows.halo.empty() || !packable(16, tensors)) return false;
  if (!packable(V * 2, {call.filters.s})) return false;
  if (tensors.begin()->rows() > INT32_MAX / 2) return false;
  if (call.shape.kind == FilterKind::fixed) return true;
  const int width = call.shape.width, tap_bytes = width == 2 || width == 4 ? 2 * width : 2;
  if (!packable(tap_bytes, {call.filters.generated})) return false;
  if (!dgenerated.empty() && !packable(tap_bytes, {dgenerated})) return false;
  const std::int64_t lanes = call.shape.head_size / V;
  return call.shape.head_size % V == 0 && lanes <= kWarpLanes && (lanes & (lanes - 1)) == 0;
}

// How rows are cut: by the shape alone, so that bits are too. All blocks of a large call find a
// place at once on the 132 SMs of an H100.
int chunk_rows(const Tensor& x) {
  constexpr std::int64_t kBlocks = 132 * kResident, kFewest = 61;
  const std::int64_t wide = ceil_div<std::int64_t>(x.cols(), kBlockChannels);
  const std::int64_t chunks = std::max<std::int64_t>(1, kBlocks / wide);
  return static_cast<int>(std::max(kFewest, ceil_div(x.rows(), chunks)));
}

DirectCall describe(const ConvCall& call, const Tensor& x, const Tensor& dy) {
  const bool generates = call.shape.kind == FilterKind::headwise;
  const auto lanes = static_cast<unsigned>(generates ? call.shape.head_size / V : kWarpLanes);
  return {read_rows<bf16>(x),
          read_rows<bf16>(dy),
          read_rows<bf16>(call.filters.generated),
          read_rows<bf16>(call.filters.s),
          call.rows.reach.data<std::int32_t>(),
          static_cast<int>(x.rows()),
          chunk_rows(x),
          static_cast<int>(x.cols()),
          std::countr_zero(lanes),
          call.shape.residual,
          0};
}

dim3 grid_of(const DirectCall& call) {
  return {static_cast<unsigned>(ceil_div(call.channels, kBlockChannels)),
          static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows))};
}

template <int W, bool Generates>
void launch_forward(DirectCall call, const Tensor& y, cudaStream_t stream) {
  using Ring = WarpRing<W, Generates, false, kForwardStages>;
  call.stage_bytes = Ring::stage_bytes(call.lane_shift);
  const int bytes = kThreads / kWarpLanes * kForwardStages * call.stage_bytes;
  launch_overlapped(forward_kernel<W, Generates>, grid_of(call), kThreads, bytes, stream,
                    rows_of<bf16>(y), call);
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

template <int W, bool Generates>
void launch_backward(DirectCall call, const ConvGradients& g, float* partial, ConvWants wants,
                     cudaStream_t stream) {
  using Ring = WarpRing<W, Generates, true, kBackwardStages>;
  call.stage_bytes = Ring::stage_bytes(call.lane_shift);
  const int bytes = kThreads / kWarpLanes * kBackwardStages * call.stage_bytes;
  launch_overlapped(backward_kernel_for<W, Generates>(wants), grid_of(call), kThreads, bytes,
                    stream, rows_of<bf16>(g.dx), rows_of<bf16>(g.dgenerated), partial, call);
}

}  // namespace

bool direct_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  if (!takes(call, {x, y})) return false;
  const DirectCall c = describe(call, x, {});
  dispatch_width(call.shape.width, [&]<int W>() {
    if (call.shape.kind == FilterKind::headwise) {
      launch_forward<W, true>(c, y, call.stream);
    } else {
      launch_forward<W, false>(c, y, call.stream);
    }
  });
  return true;
}

bool direct_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                          ConvWants wants) {
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  if (!takes(call, {x, dy}, g.dgenerated) || (input && !packable(16, {g.dx}))) return false;
  const DirectCall c = describe(call, x, dy);
  const auto chunks = static_cast<std::int64_t>(grid_of(c).y);
  const std::int64_t count = call.shape.width * x.cols();
  call.workspace.begin(static_cast<std::size_t>(chunks * count) * sizeof(float));
  auto* partial = call.workspace.take<float>(weight ? chunks * count : 0);
  dispatch_width(call.shape.width, [&]<int W>() {
    if (call.shape.kind == FilterKind::headwise) {
      launch_backward<W, true>(c, g, partial, wants, call.stream);
    } else {
      launch_backward<W, false>(c, g, partial, wants, call.stream);
    }
  });
  if (weight) {
    add_conv_weights(data_of<float>(g.ds), static_cast<float*>(nullptr), partial, count, count,
                     chunks, call.stream);
  }
  return true;
}

}  // namespace convoy::cuda
