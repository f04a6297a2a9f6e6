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

// u of a lane's pair of 16 channels, of each tap a left operand. Zeros where there are no more
// ranks, taps or channels.
struct RankTaps {
  Pair u[kTaps][4];

  __device__ void load(const MmaConvCall& call, int channel) {
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
        u[w][r] = __byte_perm(ranks[w][r], ranks[w][r + 1], 0x5410);      // channel 2 S g + 2 n
        u[w][r + 1] = __byte_perm(ranks[w][r], ranks[w][r + 1], 0x7632);  // the one after
      }
    }
  }
};

// The filters of 16 channels, low-rank.
template <bool Headwise>
class LaneFilters {
 public:
  // Which 4 values of a row of z the lane takes.
  static __device__ int z_byte(const MmaConvCall&, int, int) { return threadIdx.x % 4 * 8; }

  __device__ void load(const MmaConvCall& call, int, int channel) {
    static_.load(call, channel);
    ranks_.load(call, channel);
  }
  __device__ void make(float (&f)[4], int w, uint2 z) const {
    multiply_add_to(f, ranks_.u[w], z.x, z.y, static_.s[w]);
  }

 private:
  RankTaps ranks_;
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

// What tokens `token` and `token` + 4 of a lane sum up over the taps in its pair `set` of channels:
// filter times input row token - w, with the token's filters (Up), or input row token + w, with the
// filters of that row. in[0] is row -3 (Up) or row 0. Masked: taps that meet a document's start are
// left out.
template <bool Up, bool Masked, int Sets, bool Headwise>
__device__ inline void sum_taps(float (&sum)[2][2], const LaneFilters<Headwise>& filters,
                                const uint2 (&z)[kOwn - 1], const Pairs<Sets> (&in)[kSeen], int set,
                                const LaneReach& reach, int token) {
#pragma unroll
  for (int e = 0; e < 2; ++e) sum[e][0] = sum[e][1] = 0;
#pragma unroll
  for (int w = 0; w < kTaps; ++w) {
    float f[4];
    filters.make(f, w, z[Up ? token : token + w]);
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int own = token + kOwn / 2 * e;
      if (Masked && !reach.sees(Up ? own : own + w, w)) continue;
      const Pair row = in[Up ? own + kTaps - 1 - w : own + w].set[set];
      sum[e][0] += f[e] * low_of(row);
      sum[e][1] += f[2 + e] * high_of(row);
    }
  }
}

// The same of all of the lane's channels, rounded.
template <bool Up, bool Masked, int Sets, bool Headwise>
__device__ inline void apply_filters(Pairs<Sets> (&sums)[2],
                                     const LaneFilters<Headwise> (&filters)[Sets],
                                     const uint2 (&z)[kOwn - 1], const Pairs<Sets> (&in)[kSeen],
                                     const LaneReach& reach, int token) {
#pragma unroll
  for (int n = 0; n < Sets; ++n) {
    float sum[2][2];
    sum_taps<Up, Masked>(sum, filters[n], z, in, n, reach, token);
#pragma unroll
    for (int e = 0; e < 2; ++e) sums[e].set[n] = pack_pair(sum[e][0], sum[e][1]);
  }
}

// The forward pass of one pair of a lane's channels, for kernels that keep what it gives: u, and
// where the input lies in a ring of rows of `Pitch` bytes. Static taps stay in shared memory: a tap
// is done for all tokens before the next.
template <int Pitch>
class LanePair {
 public:
  static constexpr int kStaticBytes = kTaps * 8 * 16;  // of a warp

  // The pair begins at `channel` of the block, whose first one is channel0 of the call's; where
  // that is none, with zeros for filters. s: of the warp.
  __device__ LanePair(const MmaConvCall& call, int channel0, int channel, bool inside,
                      std::uint32_t s)
      : s_(s + threadIdx.x % 32 / 4 * 16), column_(channel) {
    const int of_call = inside ? channel0 + channel : call.channels;
    StaticTaps taps;
    taps.load(call, of_call);
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const float* t = taps.s[w];
      if (threadIdx.x % 4 == w) store_shared16(s_ + w * 128, t[0], t[1], t[2], t[3]);
    }
    __syncwarp();
    ranks_.load(call, of_call);
  }

  // sum [token, channel]. Whole: no tap meets a document's start.
  template <bool Whole>
  __device__ void convolve(float (&sum)[kOwn][2], const uint2 (&z)[kOwn - 1], std::uint32_t rows,
                           unsigned tile, const LaneReach& reach) const {
    Pairs<1> x[kSeen];
    column_.load(x, rows, tile);
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const uint4 loaded = load_shared16(s_ + w * 128);
      const float s[4] = {__uint_as_float(loaded.x), __uint_as_float(loaded.y),
                          __uint_as_float(loaded.z), __uint_as_float(loaded.w)};
#pragma unroll
      for (int i = 0; i < kOwn / 2; ++i) {
        float f[4];
        multiply_add_to(f, ranks_.u[w], z[i].x, z[i].y, s);
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int token = i + kOwn / 2 * e;
          if (w == 0) sum[token][0] = sum[token][1] = 0;
          if (!Whole && !reach.sees(token, w)) continue;
          const Pair row = x[token + kTaps - 1 - w].set[0];
          sum[token][0] += f[e] * low_of(row);
          sum[token][1] += f[2 + e] * high_of(row);
        }
      }
    }
  }

  // The pair at the lane's own tokens in another ring of rows of as many bytes.
  __device__ void load_own(Pairs<1> (&to)[kOwn], std::uint32_t rows, unsigned tile) const {
    column_.load_own(to, rows, tile);
  }

 private:
  std::uint32_t s_;
  LaneColumn<1, Pitch, 1 - kTaps> column_;
  RankTaps ranks_;
};

}  // namespace convoy::cuda::mma_conv
