// What is done to heads of K channels while a tile of theirs is in a lane's quads
// (lowrank_quads.cuh): sums over each head, and RoPE forward and back.
//
// Angles are turns in fixed point: the frequency of a pair as a 64-bit fraction of a turn, times
// the position, modulo 1 by overflow. So a sine takes two integer products and one instruction of
// the special function unit, whose absolute error of 2^-20.5 bf16 does not see.
#pragma once

#include "core/cuda/lowrank_quads.cuh"

namespace convoy::cuda {

struct HeadShared : QuadShared<1> {
  static constexpr int kFrequencyBytes = kQuadChannels / 2 * 8, kNormBytes = kQuadChannels * 4,
                       kSumBytes = kTokens * kQuadWarps * 4;
  static constexpr int kAllBytes = kBytes + kFrequencyBytes + kNormBytes + kSumBytes;
  std::uint32_t frequency, norm, sums;

  __device__ explicit HeadShared(std::uint32_t base)
      : QuadShared<1>(base),
        frequency(end),
        norm(frequency + kFrequencyBytes),
        sums(norm + kNormBytes) {}
};

// Frequencies (turns a position) of the block's pairs, and the norm's weight at its channels where
// there is one.
__device__ inline void load_head_constants(const HeadShared& shared, const double* frequency,
                                           const bf16* norm, int head_width) {
  if (threadIdx.x < kQuadChannels / 2) {
    constexpr double kTurn = 18446744073709551616.0;  // 2^64
    const auto fraction = __double2ull_rn(frequency[threadIdx.x % (head_width / 2)] * kTurn);
    const std::uint32_t to = shared.frequency + threadIdx.x * 8;
    store_shared4(to, static_cast<std::uint32_t>(fraction));
    store_shared4(to + 4, static_cast<std::uint32_t>(fraction >> 32));
  }
  if (norm == nullptr) return;
  store_shared4(shared.norm + threadIdx.x * 4,
                __float_as_uint(widen(norm[threadIdx.x % head_width])));
}

__device__ inline void load_four(float* to, std::uint32_t address) {
  const uint4 loaded = load_shared16(address);
  to[0] = __uint_as_float(loaded.x), to[1] = __uint_as_float(loaded.y);
  to[2] = __uint_as_float(loaded.z), to[3] = __uint_as_float(loaded.w);
}

// The norm's weight at the lane's channels.
__device__ inline void load_norm(float (&weight)[8], const HeadShared& shared,
                                 const QuadLane& lane) {
  load_four(weight, shared.norm + lane.lower * 4);
  load_four(weight + 4, shared.norm + lane.upper * 4);
}

// Each lane has a sum over its channels of each of its tokens; they become the sums over the heads.
// All warps of the block take part, and a barrier comes before the next call.
__device__ inline void sum_over_heads(float (&sum)[4], const HeadShared& shared, int head_width) {
  const int g = threadIdx.x % 32 / 4, warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sum[i] += __shfl_xor_sync(~0u, sum[i], 1);
    sum[i] += __shfl_xor_sync(~0u, sum[i], 2);
    if (threadIdx.x % 4 == 0) {
      store_shared4(shared.sums + ((4 * g + i) * kQuadWarps + warp) * 4, __float_as_uint(sum[i]));
    }
  }
  __syncthreads();
  const int head_warps = head_width / 32, first_warp = warp / head_warps * head_warps;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float of_warp[kQuadWarps], total = 0;
    load_four(of_warp, shared.sums + (4 * g + i) * kQuadWarps * 4);
#pragma unroll
    for (int w = 0; w < kQuadWarps; ++w) {
      if (w >= first_warp && w < first_warp + head_warps) total += of_warp[w];
    }
    sum[i] = total;
  }
}

// Turns the pairs of the lane's quads by their tokens' positions, or back.
template <bool Back>
__device__ inline void rotate(float (&v)[4][8], const HeadShared& shared, const LaneRows& rows,
                              const QuadLane& lane, int half) {
  constexpr float kRadians = 1.4629180792671596e-9f;  // 2 pi / 2^32
  const uint4 at = load_shared16(shared.positions + rows.own * 4);
  const std::uint32_t position[4] = {at.x, at.y, at.z, at.w};
  const int pair = lane.lower / (2 * half) * half + lane.lower % half;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const uint2 frequency = load_shared8(shared.frequency + (pair + e) * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t turn = __umulhi(frequency.x, position[i]) + frequency.y * position[i];
      const float angle = static_cast<float>(static_cast<std::int32_t>(turn)) * kRadians;
      const float sine = Back ? -__sinf(angle) : __sinf(angle), cosine = __cosf(angle);
      const float a = v[i][e], b = v[i][4 + e];
      v[i][e] = a * cosine - b * sine;
      v[i][4 + e] = b * cosine + a * sine;
    }
  }
}

}  // namespace convoy::cuda
