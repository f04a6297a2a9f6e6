// y = silu(gate) * up with the low-rank convolutions of both in the same pass, in bf16. Two warps
// of a block convolve 64 channels of gate, two the same channels of up; through shared memory they
// trade half of their tokens, so that each has gate and up of the other half. Neither is stored:
// the backward pass makes them again from what was convolved, which takes as many bytes as reading
// them.
#include "core/cuda/cuda_backend.h"
#include "core/cuda/launch.cuh"
#include "core/cuda/lowrank_quads.cuh"

namespace convoy {
namespace cuda {
namespace {

constexpr int kHalfChannels = kQuadChannels / 2, kHalfWarps = kQuadWarps / 2;
constexpr int kTraded = 2;                                // tokens of a lane
constexpr int kTradeBytes = kQuadThreads * kTraded * 32;  // f32 of 8 channels each

struct SwigluCall {
  QuadConv convs[2];  // gate, up
  Rows<bf16> y;       // forward
  Rows<const bf16> dy;
  Rows<bf16> dgate, dup;  // backward
  const std::int32_t* reach;
  std::int64_t rows, chunk_rows;
};

// The two tokens that the lane keeps: its own values of them, and those of the warp that convolved
// the other matrix. Warps of gate keep the first two of four, those of up the others.
__device__ inline void trade(float (&gate)[kTraded][8], float (&up)[kTraded][8],
                             const float (&sum)[4][8], std::uint32_t memory) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool is_up = warp >= kHalfWarps;
  const auto place = [&](int of_warp, int token, int four) {
    return memory + ((of_warp * kTraded + token) * 2 + four) * 512 + lane * 16;
  };
#pragma unroll
  for (int i = 0; i < kTraded; ++i) {
    float sent[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) sent[e] = is_up ? sum[i][e] : sum[i + kTraded][e];
    store_shared16(place(warp, i, 0), sent[0], sent[1], sent[2], sent[3]);
    store_shared16(place(warp, i, 1), sent[4], sent[5], sent[6], sent[7]);
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kTraded; ++i) {
#pragma unroll
    for (int four = 0; four < 2; ++four) {
      const uint4 got = load_shared16(place((warp + kHalfWarps) % kQuadWarps, i, four));
      const float other[4] = {__uint_as_float(got.x), __uint_as_float(got.y),
                              __uint_as_float(got.z), __uint_as_float(got.w)};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int e = 4 * four + k;
        const float own = is_up ? sum[i + kTraded][e] : sum[i][e];
        gate[i][e] = is_up ? other[k] : own;
        up[i][e] = is_up ? own : other[k];
      }
    }
  }
}

__device__ inline void store_eight(bf16* to, const float (&v)[8]) {
  __stcs(reinterpret_cast<uint4*>(to), {pack_pair(v[0], v[1]), pack_pair(v[2], v[3]),
                                        pack_pair(v[4], v[5]), pack_pair(v[6], v[7])});
}

template <bool Backward>
__global__ void __launch_bounds__(kQuadThreads, 2)
    conv_swiglu_kernel(const __grid_constant__ SwigluCall call) {
  extern __shared__ __align__(16) char memory[];
  wait_for_previous();
  allow_next();
  using Memory = QuadShared<2>;
  const Memory shared(shared_address(memory));
  const QuadOrder order{4};
  const QuadChannels channels{static_cast<int>(blockIdx.x) * kHalfChannels, kHalfChannels};
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  QuadLoader<2> loader(shared_address(memory), call.convs, channels, call.reach, nullptr, call.rows,
                       first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_quad_filters(shared, call.convs, channels, order);
  __syncthreads();
  ColumnFilters filters[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) filters[j].load(shared, j);
  const QuadLane lane(order, kQuadChannels);
  const QuadConv& conv = call.convs[Memory::conv_of_warp()];
  const int channel = channels.first + lane.lower % kHalfChannels;
  const bool inside = channel < conv.channels;
  const int kept = threadIdx.x % 32 / 4 * 4 + Memory::conv_of_warp() * kTraded;  // first token
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    loader.next();
    const std::int64_t t = first + tile * kTokens + kept;
    Pack<bf16, 8> dy[kTraded];
    if (Backward) {
#pragma unroll
      for (int i = 0; i < kTraded; ++i) {
        if (inside && t + i < end) dy[i] = load_pack<8>(call.dy.row(t + i) + channel);
      }
    }
    float sum[4][8], gate[kTraded][8], up[kTraded][8];
    convolve_tile<false>(sum, filters, shared, (kLead + tile * kTokens) % kRing, lane, conv);
    trade(gate, up, sum, shared.end);
#pragma unroll
    for (int i = 0; i < kTraded; ++i) {
      if (!inside || t + i >= end) break;
      float first_of[8], second[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        if (Backward) {
          const float d = widen(dy[i].element[e]);
          first_of[e] = d * up[i][e] * silu_gradient(gate[i][e]);
          second[e] = d * silu(gate[i][e]);
        } else {
          first_of[e] = silu(gate[i][e]) * up[i][e];
        }
      }
      store_eight((Backward ? call.dgate : call.y).row(t + i) + channel, first_of);
      if (Backward) store_eight(call.dup.row(t + i) + channel, second);
    }
  }
  wait_copies<0>();
}

bool takes(const ConvolvedInput& gate, const ConvolvedInput& up, const ConvRows& rows) {
  return gate.x.size() > 0 && quads_take(gate.filters, gate.conv, rows, gate.x) &&
         quads_take(up.filters, up.conv, rows, up.x);
}

SwigluCall describe(const ConvolvedInput& gate, const ConvolvedInput& up, const ConvRows& rows) {
  SwigluCall call{};
  call.convs[0] = describe_quads(gate.filters, gate.conv, gate.x);
  call.convs[1] = describe_quads(up.filters, up.conv, up.x);
  call.reach = rows.reach.data<std::int32_t>();
  call.rows = gate.x.rows();
  return call;
}

template <bool Backward>
void launch(cudaStream_t stream, SwigluCall call) {
  const int wide = ceil_div(call.convs[0].channels, kHalfChannels);
  call.chunk_rows = quad_chunk_rows(call.rows, wide);
  const dim3 grid(static_cast<unsigned>(wide),
                  static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows)));
  launch_overlapped(conv_swiglu_kernel<Backward>, grid, kQuadThreads,
                    QuadShared<2>::kBytes + kTradeBytes, stream, call);
}

}  // namespace
}  // namespace cuda

void CudaBackend::conv_swiglu_forward(Tensor y, const ConvolvedInput& gate,
                                      const ConvolvedInput& up, const ConvRows& rows) {
  using namespace cuda;
  if (!takes(gate, up, rows) || !packable(16, {y})) {
    return Backend::conv_swiglu_forward(y, gate, up, rows);
  }
  SwigluCall call = describe(gate, up, rows);
  call.y = rows_of<bf16>(y);
  launch<false>(stream_, call);
}

void CudaBackend::conv_swiglu_backward(Tensor dgate, Tensor dup, Tensor dy,
                                       const ConvolvedInput& gate, const ConvolvedInput& up,
                                       const ConvRows& rows) {
  using namespace cuda;
  if (!takes(gate, up, rows)) {
    return Backend::conv_swiglu_backward(dgate, dup, dy, gate, up, rows);
  }
  if (!packable(16, {dgate, dup, dy})) {  // gate.y and up.y may not be there
    conv_forward(gate.y, gate.x, gate.filters, gate.conv, rows);
    conv_forward(up.y, up.x, up.filters, up.conv, rows);
    return swiglu_backward(dgate, dup, dy, gate.y, up.y);
  }
  SwigluCall call = describe(gate, up, rows);
  call.dy = read_rows<bf16>(dy);
  call.dgate = rows_of<bf16>(dgate);
  call.dup = rows_of<bf16>(dup);
  launch<true>(stream_, call);
}

}  // namespace convoy
