// What is done to heads of K channels while a tile of their convolution is in registers
// (conv_mma_rows.cuh): sums over each head, and RoPE forward and back. A lane's two pairs of
// channels lie half a head apart, so that it has both channels of the pairs that RoPE turns.
//
// Angles are turns in fixed point: the frequency of a pair as a 64-bit fraction of a turn, times
// the position, modulo 1 by overflow. So a sine takes few integer products and one instruction of
// the special function unit, whose absolute error of 2^-20.5 bf16 does not see.
#pragma once

#include "core/cuda/conv_mma_filters.cuh"

namespace convoy::cuda::mma_conv {

constexpr int kHeadWarps = 4, kHeadThreads = 32 * kHeadWarps;
constexpr int kHalfChannels = 16 * kHeadWarps;  // lower ones of a block, as many upper ones

// A block of 128 channels, of which whole heads are used; behind its ring positions, sums over
// heads, and static taps of lower and upper channels.
template <bool Backward>
struct HeadBlock : Block<kHeadWarps, 2, false, Backward> {
  using Base = Block<kHeadWarps, 2, false, Backward>;
  static constexpr bool kWholePacks = true;
  static constexpr int kPositions = Base::kRingBytes;
  static constexpr int kHeadSums = kPositions + kRing * 4;
  static constexpr int kStatic = kHeadSums + kHeadWarps * kTokens * 4;
  static constexpr int kBytes = kStatic + 2 * kHeadWarps * LanePair<Base::kPitch>::kStaticBytes;
};

// A lane's channels, of the block: two from `lower` on, in the lower half of a head of 2 `half`
// channels, and the two `half` further. Not inside: the block's heads leave none for it.
struct HeadLane {
  int half, lower, pair;  // pair: of the head, the first of the lane's two
  bool inside;

  __device__ HeadLane(int head_width, int block_channels) : half(head_width / 2) {
    const int place = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 * 2;  // among lower ones
    inside = 2 * place < block_channels;
    pair = place % half;
    lower = inside ? place / half * head_width + pair : 0;
  }
  __device__ int upper() const { return lower + half; }
};

// Copies the positions of the ring's `block`th 32 rows, as RowLoader does the rows.
__device__ inline void copy_positions(std::uint32_t to, const std::int32_t* positions,
                                      std::int64_t rows, std::int64_t chunk_first, unsigned block) {
  if (threadIdx.x >= kTokens) return;
  const auto place = static_cast<int>(block * kTokens + threadIdx.x);
  const int row = static_cast<int>(chunk_first) - kLead + place;
  const bool there = row >= 0 && row < static_cast<int>(rows);
  copy_ahead<4>(to + place % kRing * 4, positions + (there ? row : 0), there);
}

// What is the same for all tokens of the lane's pairs: their frequencies, and the norm's weights.
class HeadConstants {
 public:
  // frequency: turns a position, [half]; weight may be null.
  __device__ HeadConstants(const HeadLane& lane, const double* frequency, const bf16* weight) {
    constexpr double kTurn = 18446744073709551616.0;  // 2^64
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const auto fraction = __double2ull_rn(frequency[lane.pair + e] * kTurn);
      low_[e] = static_cast<std::uint32_t>(fraction);
      high_[e] = static_cast<std::uint32_t>(fraction >> 32);
      weight_[0][e] = weight == nullptr ? 1.0f : widen(weight[lane.pair + e]);
      weight_[1][e] = weight == nullptr ? 1.0f : widen(weight[lane.pair + lane.half + e]);
    }
  }

  // Of the lower pair (part 0) or the upper one.
  __device__ float weight(int part, int e) const { return weight_[part][e]; }

  // Turns the lane's pairs by their tokens' positions, or back. The first token's angle is exact;
  // the others differ by few positions, or by a window's at its end, of 2^-33 turns of error each.
  template <bool Back>
  __device__ void rotate(float (&lower)[kOwn][2], float (&upper)[kOwn][2], std::uint32_t positions,
                         unsigned tile) const {
    constexpr float kRadians = 1.4629180792671596e-9f;  // 2 pi / 2^32
    std::uint32_t position[kOwn];
    load_positions(position, positions, tile);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const std::uint32_t first = __umulhi(low_[e], position[0]) + high_[e] * position[0];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) {
        const std::uint32_t turn = first + high_[e] * (position[i] - position[0]);
        const float angle = static_cast<float>(static_cast<std::int32_t>(turn)) * kRadians;
        const float sine = Back ? -__sinf(angle) : __sinf(angle), cosine = __cosf(angle);
        const float a = lower[i][e], b = upper[i][e];
        lower[i][e] = a * cosine - b * sine;
        upper[i][e] = b * cosine + a * sine;
      }
    }
  }

 private:
  static __device__ void load_positions(std::uint32_t (&to)[kOwn], std::uint32_t positions,
                                        unsigned tile) {
#pragma unroll
    for (int i = 0; i < kOwn; i += 4) {
      const uint4 four = load_shared16(ring_at<4>(positions, (kLead + lane_token() + i) * 4, tile));
      to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
    }
  }

  std::uint32_t low_[2], high_[2];
  float weight_[2][2];
};

// The token of a tile whose sum over a head a lane has, and how it comes to the lanes that own it.
__device__ inline int summed_token() { return lane_token() + threadIdx.x % 32 / 4; }
__device__ inline float of_token(float summed, int i) {
  return __shfl_sync(~0u, summed, i * 4 + static_cast<int>(threadIdx.x) % 4);
}

// From each lane's sums over its own channels of its 8 tokens: the sum over the head of the token
// summed_token(). All warps of the block take part, and a barrier comes before the next call.
__device__ inline float sum_over_heads(float (&sum)[kOwn], std::uint32_t memory, int head_width) {
  // Lanes 16, then 8, then 4 apart add theirs, each for half of the tokens that they still have.
#pragma unroll
  for (int left = kOwn / 2; left > 0; left /= 2) {
    const bool is_upper = (threadIdx.x % 32 / 4 & left) != 0;
#pragma unroll
    for (int i = 0; i < left; ++i) {
      const float sent = is_upper ? sum[i] : sum[i + left];
      const float own = is_upper ? sum[i + left] : sum[i];
      sum[i] = own + __shfl_xor_sync(~0u, sent, 4 * left);
    }
  }
  const int warp = threadIdx.x / 32, token = summed_token();
  store_shared4(memory + (warp * kTokens + token) * 4, __float_as_uint(sum[0]));
  __syncthreads();
  const int head_warps = head_width / 32, first = warp / head_warps * head_warps;
  float total = 0;
#pragma unroll
  for (int w = 0; w < kHeadWarps; ++w) {
    if (w < first || w >= first + head_warps) continue;
    total += __int_as_float(load_shared4(memory + (w * kTokens + token) * 4));
  }
  return total;
}

}  // namespace convoy::cuda::mma_conv
