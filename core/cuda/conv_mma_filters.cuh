// Filters of convolutions on the matrix units: what a lane keeps of u and s, and what it does with
// the filters that a matrix product makes of them and of z (conv_mma_rows.cuh has the layout).
#pragma once

#include "core/cuda/conv_mma_rows.cuh"
#include "core/cuda/mma.cuh"

namespace convoy::cuda::mma_conv {

// s (and the residual in tap 0) of the lane's pair of 16 channels, as accumulators to start from.
// Zeros where there are no more taps or channels.
struct StaticTaps {
  float s[kTaps][4];

  __device__ void load(const MmaConvCall& call, int channel) {
    Pair both[kTaps];
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const bool there = w < call.width && channel < call.channels;
      both[w] =
          there ? *reinterpret_cast<const Pair*>(call.s + w * std::int64_t{call.channels} + channel)
                : 0u;
    }
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const float residual = w == 0 && call.residual ? 1.0f : 0.0f;
      s[w][0] = low_of(both[w]) + residual;
      s[w][2] = high_of(both[w]) + residual;
      s[w][1] = kept(s[w][0]);
      s[w][3] = kept(s[w][2]);
    }
  }
};

// The filters of 16 channels: u of each tap as a left operand, zeros where there are no more ranks,
// taps or channels.
template <bool Headwise>
class LaneFilters {
 public:
  // Which 4 values of a row of z the lane takes.
  static __device__ int z_byte(const MmaConvCall&, int, int) { return threadIdx.x % 4 * 8; }

  __device__ void load(const MmaConvCall& call, int, int channel) {
    static_.load(call, channel);
    Pair ranks[kTaps][4];
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int rank = 4 * (threadIdx.x % 4) + r;
        const bf16* from = call.u + (rank * call.width + w) * std::int64_t{call.channels} + channel;
        const bool there = rank < call.rank && w < call.width && channel < call.channels;
        ranks[w][r] = there ? *reinterpret_cast<const Pair*>(from) : 0u;
      }
    }
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
#pragma unroll
      for (int r = 0; r < 4; r += 2) {
        u_[w][r] = __byte_perm(ranks[w][r], ranks[w][r + 1], 0x5410);      // channel 2 S g + 2 n
        u_[w][r + 1] = __byte_perm(ranks[w][r], ranks[w][r + 1], 0x7632);  // the one after
      }
    }
  }
  __device__ void make(float (&f)[4], int w, uint2 z) const {
    multiply_add_to(f, u_[w], z.x, z.y, static_.s[w]);
  }

 private:
  Pair u_[kTaps][4];
  StaticTaps static_;
};

// Head-wise: ones where the depth is the channel's group.
template <>
class LaneFilters<true> {
 public:
  // Those of the lane's group c of the warp, which has one at least; channel0: the block's first.
  static __device__ int z_byte(const MmaConvCall& call, int channel0, int warp_channels) {
    const int warp_first = channel0 + threadIdx.x / 32 * warp_channels;
    const int first = warp_first / call.rank, last = (warp_first + warp_channels - 1) / call.rank;
    return (min(first + static_cast<int>(threadIdx.x) % 4, last) - channel0 / call.rank) * 8;
  }

  __device__ void load(const MmaConvCall& call, int warp_first, int channel) {
    static_.load(call, channel);
    const int group = channel / call.rank - warp_first / call.rank;
    const Pair one = group == static_cast<int>(threadIdx.x) % 4 ? 0x3f80u : 0u;
    even_[0] = one, even_[1] = kept(one);
    odd_[0] = one << 16, odd_[1] = kept(one << 16);
  }
  __device__ void make(float (&f)[4], int w, uint2 z) const {
    multiply_add_to(f, w % 2 == 0 ? even_ : odd_, w < 2 ? z.x : z.y, static_.s[w]);
  }

 private:
  Pair even_[2], odd_[2];  // of taps 0 and 2, 1 and 3
  StaticTaps static_;
};

// What tokens `token` and `token` + 4 of a lane sum up over the taps: filter times input row token
// - w, with the token's filters (Up), or input row token + w, with the filters of that row. in[0]
// is row -3 (Up) or row 0. Masked: taps that meet a document's start are left out.
template <bool Up, bool Masked, int Sets, bool Headwise>
__device__ inline void apply_filters(Pairs<Sets> (&sums)[2],
                                     const LaneFilters<Headwise> (&filters)[Sets],
                                     const uint2 (&z)[kOwn - 1], const Pairs<Sets> (&in)[kSeen],
                                     const LaneReach& reach, int token) {
#pragma unroll
  for (int n = 0; n < Sets; ++n) {
    float sum[2][2] = {};
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const uint2 ranks = z[Up ? token : token + w];
      float f[4];
      filters[n].make(f, w, ranks);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int own = token + kOwn / 2 * e;
        if (Masked && !reach.sees(Up ? own : own + w, w)) continue;
        const Pair row = in[Up ? own + kTaps - 1 - w : own + w].set[n];
        sum[e][0] += f[e] * low_of(row);
        sum[e][1] += f[2 + e] * high_of(row);
      }
    }
#pragma unroll
    for (int e = 0; e < 2; ++e) sums[e].set[n] = pack_pair(sum[e][0], sum[e][1]);
  }
}

}  // namespace convoy::cuda::mma_conv
