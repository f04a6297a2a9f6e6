// The parts of the backward pass of convolutions on the matrix units, each of a tile of 32 tokens
// and a warp's 32 channels: dx from filters made again, and from the products p_w[t, d] = dy[t, d]
// x[t - w, d], rounded to bf16,
//
//   low-rank    dz^T = sum_w u_w p_w^T           du_w^T = p_w^T z    ds_w^T = p_w^T 1
//   head-wise   dz of tap w = p_w 1 by groups                        ds_w^T = p_w^T 1
//
// which take p straight and turned; so x and dy are loaded in both orders. Where matrix i of 8 rows
// has every fourth token from i on, x of a tap w earlier is the matrix i - w. A kernel may call the
// parts of a tile in any order.
#pragma once

#include "core/cuda/conv_mma_filters.cuh"

namespace convoy::cuda::mma_conv {

constexpr int kBackwardSets = 2;           // of 16 channels, of a warp
constexpr int kDzTile = kTokens * kRanks;  // values of low-rank dz

// Low-rank, shared memory also holds u and, of two tiles by turns, what each warp adds to dz.
template <int Warps, bool Headwise>
struct BackwardBlock : Block<Warps, kBackwardSets, Headwise, true> {
  using Base = Block<Warps, kBackwardSets, Headwise, true>;
  static constexpr int kSets = kBackwardSets;
  static constexpr int kFilters = (Base::kRingBytes + 127) / 128 * 128;  // where u begins
  static constexpr int kSums = kFilters + kTaps * kRanks * Base::kPitch;
  static constexpr int kSumBytes = Warps * kDzTile * 4;  // of a tile
  static constexpr int kBytes = Headwise ? Base::kRingBytes : kSums + 2 * kSumBytes;
};

// A value that the compiler shall not know, so that what is made of it is made there.
template <class T>
__device__ inline T unknown(T v) {
  asm volatile("" : "+r"(v));
  return v;
}

// dx.
template <class Sizes>
class InputPart {
  using Filters = LaneFilters<Sizes::kHeadwise>;
  static constexpr int kSets = Sizes::kSets;

 public:
  // channel0: the block's first.
  __device__ InputPart(const MmaConvCall& call, int channel0)
      : ranks_(Filters::z_byte(call, channel0, 16 * kSets)) {
    const int warp_first = channel0 + threadIdx.x / 32 * 16 * kSets;
#pragma unroll
    for (int n = 0; n < kSets; ++n) {
      filters_[n].load(call, warp_first, channel0 + lane_channel<kSets>() + 2 * n);
    }
  }

  // first: the tile's first row. Whole, here and below: all of its rows exist, and no tap of theirs
  // or of the 3 after meets a document's start.
  template <bool Whole>
  __device__ void run(const Rows<bf16>& dx, const MmaConvCall& call, int channel0, int first,
                      std::uint32_t memory, unsigned tile, const LaneReach& reach) const {
    Pairs<kSets> dy[kSeen];
    uint2 z[kOwn - 1];
    ranks_.template load<kOwn - 1>(z, memory + Sizes::kZ, tile);
    column_.load(dy, memory + Sizes::kRowsBytes, tile);
    const LaneStore<kSets> to(dx, call, channel0, unknown(first));
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      Pairs<kSets> sums[2];
      apply_filters<false, !Whole>(sums, filters_, z, dy, reach, i);
      to.template store<Whole>(i, sums[0]);
      to.template store<Whole>(i + kOwn / 2, sums[1]);
    }
  }

 private:
  LaneColumn<kSets, Sizes::kPitch, 0> column_;
  LaneRanks<Sizes::kZPitch> ranks_;
  Filters filters_[kSets];
};

// x and dy straight, as what products of 16 channels and 16 tokens are made of: left operands whose
// rows g and g + 8 are tokens 4 g + i and 4 g + i + 1 of the tile.
template <class Sizes>
class StraightRows {
 public:
  __device__ StraightRows() : places_(place(0), place(-4)) {}

  struct Set {
    Pair x[4][4], dy[2][4];  // of matrices i and i + 1: 8 channels each, and the 8 after them

    // p_w of tokens i and i + 1 of each four. far: how many rows back a lane's four tokens may
    // look.
    template <bool Whole>
    __device__ void multiply(Pair (&p)[4], int i, int w, const int (&far)[4]) const {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int seen = i + e - w + 4;
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          p[2 * q + e] = multiply_pairs(dy[i / 2][2 * e + q], x[seen / 2][seen % 2 * 2 + q]);
          if (!Whole && far[i + e] < w) p[2 * q + e] = 0;
        }
      }
    }
  };

  // Of 16 channels of the warp, the n-th.
  __device__ void load(Set& to, std::uint32_t memory, unsigned tile, int n) const {
    const std::uint32_t own = places_.first(memory, tile) ^ n * 32;
    const std::uint32_t before = places_.second(memory, tile) ^ n * 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      load_matrices(to.dy[i], own + Sizes::kRowsBytes + i * 2 * Sizes::kPitch);
      load_matrices(to.x[2 + i], own + i * 2 * Sizes::kPitch);
      load_matrices(to.x[i], before + i * 2 * Sizes::kPitch);
    }
  }

  template <bool Whole>
  static __device__ void load_reach(int (&far)[4], std::uint32_t memory, unsigned tile) {
    if (Whole) return;
    const int row = kLead + threadIdx.x % 32 / 4 * 4;
    const uint4 loaded = load_shared16(ring_at<4>(memory + Sizes::kReach, row * 4, tile));
    far[0] = static_cast<int>(loaded.x), far[1] = static_cast<int>(loaded.y);
    far[2] = static_cast<int>(loaded.z), far[3] = static_cast<int>(loaded.w);
  }

 private:
  // Of the row whose address the lane gives, a number of tokens further.
  static __device__ unsigned place(int token) {
    const int lane = threadIdx.x % 32;
    return ring_place<Sizes::kPitch>(kLead + lane % 8 * 4 + lane / 16 + token,
                                     threadIdx.x / 32 * 32 * Sizes::kSets + lane / 8 % 2 * 16);
  }
  Places<Sizes::kPitch> places_;
};

// u [taps, ranks, channels of the block], zeros where there is no more. The 16-byte pieces of row r
// change places by r % 8.
template <class Sizes>
__device__ inline void load_shared_filters(std::uint32_t u, const MmaConvCall& call, int channel0) {
  constexpr int kPacks = Sizes::kChannels / 8;
  constexpr int kOwnPacks = kTaps * kRanks * kPacks / Sizes::kThreads;
#pragma unroll
  for (int i = 0; i < kOwnPacks; ++i) {
    const int row = (i * Sizes::kThreads + threadIdx.x) / kPacks, pack = threadIdx.x % kPacks;
    const int w = row / kRanks, rank = row % kRanks, channel = channel0 + pack * 8;
    const bool there = w < call.width && rank < call.rank && channel < call.channels;
    copy_ahead(
        u + row * Sizes::kPitch + (pack ^ row % 8) * 16,
        there ? call.u + (rank * call.width + w) * std::int64_t{call.channels} + channel : call.u,
        there);
  }
}

// Low-rank: what the warp's channels add to dz.
template <class Sizes>
class RanksPart {
 public:
  __device__ RanksPart()
      : filters_((threadIdx.x % 32 / 16 * 8 + threadIdx.x % 8) * Sizes::kPitch +
                 ((threadIdx.x / 32 * 32 * Sizes::kSets + threadIdx.x / 8 % 2 * 16) ^
                  threadIdx.x % 8 * 16)),
        sums_((threadIdx.x / 32 * kDzTile + threadIdx.x % 32 * 4) * 4) {}

  // Leaves it as [pair of matrices, half of the ranks, lane, 4], the lanes' accumulators: rows are
  // tokens, columns ranks.
  template <bool Whole>
  __device__ void run(std::uint32_t to, std::uint32_t memory, unsigned tile) const {
    const std::uint32_t filters = memory + Sizes::kFilters + filters_;
    int far[4];
    rows_.template load_reach<Whole>(far, memory, tile);
    float dz[2][2][4] = {};
#pragma unroll
    for (int n = 0; n < Sizes::kSets; ++n) {
      typename StraightRows<Sizes>::Set rows;
      rows_.load(rows, memory, tile, n);
#pragma unroll
      for (int w = 0; w < kTaps; ++w) {
        Pair u[4];  // of 8 ranks and 8 channels each
        load_matrices(u, (filters ^ n * 32) + w * kRanks * Sizes::kPitch);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          Pair p[4];
          rows.template multiply<Whole>(p, 2 * i, w, far);
          multiply_add(dz[i][0], p, u[0], u[1]);
          multiply_add(dz[i][1], p, u[2], u[3]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float(&sum)[4] = dz[i / 2][i % 2];
      store_shared16(to + sums_ + i * 32 * 16, sum[0], sum[1], sum[2], sum[3]);
    }
  }

 private:
  StraightRows<Sizes> rows_;
  int filters_, sums_;
};

// Adds dz of a tile over the block's warps, in order.
template <class Sizes>
__device__ inline void add_channels(float* to, std::uint32_t sums) {
  constexpr int kValues = kDzTile / Sizes::kThreads;  // of a thread
  static_assert(kValues == 2 || kValues == 4, "what moves as one");
  Pack<float, kValues> sum = {};
#pragma unroll
  for (int warp = 0; warp < Sizes::kThreads / 32; ++warp) {
    const std::uint32_t from = sums + (warp * kDzTile + threadIdx.x * kValues) * 4;
    if constexpr (kValues == 2) {
      const uint2 more = load_shared8(from);
      sum.element[0] += __uint_as_float(more.x), sum.element[1] += __uint_as_float(more.y);
    } else {
      const uint4 more = load_shared16(from);
      sum.element[0] += __uint_as_float(more.x), sum.element[1] += __uint_as_float(more.y);
      sum.element[2] += __uint_as_float(more.z), sum.element[3] += __uint_as_float(more.w);
    }
  }
  store_pack(to + threadIdx.x * kValues, sum);
}

// Head-wise: dz of the warp's groups, of 8, 16 or 32 channels. Columns of the sums are the taps of
// one group and, below 32 channels, of the one after it.
template <class Sizes>
class TapsPart {
 public:
  __device__ explicit TapsPart(const MmaConvCall& call) {
    const int column = threadIdx.x % 32 / 4 / kTaps;  // 0 or 1: of which group
#pragma unroll
    for (int n = 0; n < Sizes::kSets; ++n) {
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const int group = call.rank == 8 ? q : (call.rank == 16 ? n : 0);
        is_ours_[n][q] = column == group ? 0x3f803f80u : 0u;
      }
    }
  }

  template <bool Whole>
  __device__ void run(const Rows<bf16>& dz, const MmaConvCall& call, int channel0, int first,
                      std::uint32_t memory, unsigned tile) const {
    int far[4];
    rows_.template load_reach<Whole>(far, memory, tile);
    float sums[Sizes::kSets][2][4] = {};
#pragma unroll
    for (int n = 0; n < Sizes::kSets; ++n) {
      typename StraightRows<Sizes>::Set rows;
      rows_.load(rows, memory, tile, n);
#pragma unroll
      for (int w = 0; w < kTaps; ++w) {
        const bool tap = threadIdx.x % 32 / 4 % kTaps == w;
        const Pair ones[2] = {tap ? is_ours_[n][0] : 0u, tap ? is_ours_[n][1] : 0u};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          Pair p[4];
          rows.template multiply<Whole>(p, 2 * i, w, far);
          multiply_add(sums[n][i], p, ones[0], ones[1]);
        }
      }
    }
    const int warp_group = (channel0 + threadIdx.x / 32 * 16 * Sizes::kSets) / call.rank;
    if (call.rank == 8) {
#pragma unroll
      for (int n = 0; n < Sizes::kSets; ++n) {
        store<Whole>(dz, call, warp_group + 2 * n, first, sums[n]);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[0][i][k] += sums[1][i][k];
      }
      store<Whole>(dz, call, warp_group, first, sums[0]);
    }
  }

 private:
  // group: that of the first four columns.
  template <bool Whole>
  static __device__ void store(const Rows<bf16>& dz, const MmaConvCall& call, int group, int first,
                               const float (&sums)[2][4]) {
    const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
    const int column = group * kTaps + 2 * c;
    if (column >= call.channels / call.rank * kTaps || (c >= 2 && call.rank == 32)) return;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first + 4 * g + i;
      if (!Whole && row >= call.rows) break;
      const Pair taps = pack_pair(sums[i / 2][i % 2 * 2], sums[i / 2][i % 2 * 2 + 1]);
      *reinterpret_cast<Pair*>(dz.row(row) + column) = taps;
    }
  }

  StraightRows<Sizes> rows_;
  Pair is_ours_[Sizes::kSets][2];
};

// du (low-rank) and ds of all tiles of a warp, as accumulators: rows g and g + 8 are 16 of the
// warp's channels, the columns ranks (of both halves) and taps.
template <bool Headwise>
struct WeightSums {
  float u[kBackwardSets][kTaps][2][4], s[kBackwardSets][4];
};
template <>
struct WeightSums<true> {
  float s[kBackwardSets][4];
};

// What the tile adds to du and ds.
template <class Sizes>
class WeightPart {
 public:
  __device__ WeightPart()
      : rows_(place(0), place(-4)),
        ranks_(kept(z_place<Sizes::kZPitch>(kLead / 4 + threadIdx.x % 8,
                                            threadIdx.x % 32 / 8 * Sizes::kZPitch))) {}

  template <bool Whole>
  __device__ void run(WeightSums<Sizes::kHeadwise>& sums, std::uint32_t memory, unsigned tile,
                      const LaneReach& reach) const {
    Pair z[2][4];  // of 8 ranks
    const std::uint32_t own = rows_.first(memory, tile), before = rows_.second(memory, tile);
    if constexpr (!Sizes::kHeadwise) {
      const std::uint32_t z_rows = ring_at<Sizes::kZPitch>(memory + Sizes::kZ, ranks_, tile);
      load_matrices_transposed(z[0], z_rows);
      load_matrices_transposed(z[1], z_rows ^ 16);
    }
#pragma unroll
    for (int n = 0; n < Sizes::kSets; ++n) {
      Pair x[2][2][4], dy[2][4];  // of 8 channels: 4 tokens before, own
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const int piece = n * 32 + q * 16;
        load_matrices_transposed(x[q][0], before ^ piece);
        load_matrices_transposed(x[q][1], own ^ piece);
        load_matrices_transposed(dy[q], (own ^ piece) + Sizes::kRowsBytes);
      }
#pragma unroll
      for (int w = 0; w < kTaps; ++w) {
        const Pair ones = threadIdx.x % 32 / 4 == w ? 0x3f803f80u : 0u;
#pragma unroll
        for (int k = 0; k < 4; k += 2) {
          Pair p[4];
#pragma unroll
          for (int i = k; i < k + 2; ++i) {
            Pair mask = ~0u;
            if (!Whole) {
              mask = (reach.sees(i, w) ? 0xffffu : 0u) | (reach.sees(i + 4, w) ? 0xffff0000u : 0u);
            }
#pragma unroll
            for (int q = 0; q < 2; ++q) {
              p[2 * (i - k) + q] = multiply_pairs(dy[q][i], x[q][i >= w][(i - w) & 3]) & mask;
            }
          }
          if constexpr (!Sizes::kHeadwise) {
            multiply_add(sums.u[n][w][0], p, z[0][k], z[0][k + 1]);
            multiply_add(sums.u[n][w][1], p, z[1][k], z[1][k + 1]);
          }
          multiply_add(sums.s[n], p, ones, ones);
        }
      }
    }
  }

 private:
  // Of the row whose address the lane 8 i + k gives: the i-th of four, a number of tokens further.
  static __device__ unsigned place(int token) {
    return ring_place<Sizes::kPitch>(kLead + threadIdx.x % 8 * 4 + threadIdx.x % 32 / 8 + token,
                                     threadIdx.x / 32 * 32 * Sizes::kSets);
  }
  Places<Sizes::kPitch> rows_;
  int ranks_;
};

// partial [1 + rank, width, channels] of one chunk: ds, then du; head-wise ds alone.
template <bool Headwise>
__device__ inline void store_weights(float* partial, const WeightSums<Headwise>& sums,
                                     const MmaConvCall& call, int channel0) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
  const std::int64_t channels = call.channels;
#pragma unroll
  for (int n = 0; n < kBackwardSets; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int channel = channel0 + (threadIdx.x / 32 * kBackwardSets + n) * 16 + i / 2 * 8 + g;
      if (channel >= call.channels) break;
      const int column = 2 * c + i % 2;
      if (column < call.width) partial[column * channels + channel] = sums.s[n][i];
      if constexpr (!Headwise) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int rank = half * 8 + column;
          if (rank >= call.rank) break;
#pragma unroll
          for (int w = 0; w < kTaps; ++w) {
            if (w >= call.width) break;
            partial[((1 + rank) * call.width + w) * channels + channel] = sums.u[n][w][half][i];
          }
        }
      }
    }
  }
}

// dz_partial [channel blocks, tiles, kDzTile], weight_partial [chunks, 1 + rank, width, channels],
// or head-wise [chunks, width, channels].
struct BackwardTargets {
  Rows<bf16> dx, dz;
  float *dz_partial, *weight_partial;
  unsigned turns;
};

// All of a block of threads, whose channels are the stripe-th and whose rows the chunk-th of the
// call: dx and head-wise dz, and the partial sums of low-rank dz, du and ds. shared: of
// Sizes::kBytes. The warps that share a scheduler begin a tile with different parts, so that they
// ask the matrix units, the FMA units and shared memory by turns; `turn`, 0 or 1, moves the order
// on. It is not known to the compiler, which so does not mix the parts and run out of registers.
template <class Sizes, bool Input, bool Weight>
__device__ inline void backward_block(const BackwardTargets& to, const MmaConvCall& call,
                                      unsigned stripe, unsigned chunk, unsigned turn,
                                      const char* shared) {
  constexpr bool kHeadwise = Sizes::kHeadwise;
  constexpr bool kRanksPart = Input && !kHeadwise, kTapsPart = Input && kHeadwise;
  const std::uint32_t memory = shared_address(shared);
  const int channel0 = static_cast<int>(stripe) * Sizes::kChannels;
  const std::int64_t first = chunk * call.chunk_rows;
  const unsigned tiles = static_cast<unsigned>(
      ceil_div<std::int64_t>(min(call.chunk_rows, call.rows - first), kTokens));
  if (kRanksPart) load_shared_filters<Sizes>(memory + Sizes::kFilters, call, channel0);
  RowLoader<Sizes, true> loader(memory, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  const InputPart<Sizes> input(call, channel0);
  const RanksPart<Sizes> ranks;
  const TapsPart<Sizes> taps(call);
  const WeightPart<Sizes> weight;
  WeightSums<kHeadwise> sums = {};
  const auto dz_sums = [&](unsigned tile) {
    return memory + Sizes::kSums + tile % 2 * Sizes::kSumBytes;
  };
  const auto finish_dz = [&](unsigned tile) {
    const std::int64_t all = ceil_div<std::int64_t>(call.rows, kTokens);
    add_channels<Sizes>(to.dz_partial + (stripe * all + first / kTokens + tile) * kDzTile,
                        dz_sums(tile));
  };
  const unsigned first_part = (threadIdx.x / 128 + turn) % 2 * 2 * to.turns;
  for (unsigned tile = 0; tile < tiles; ++tile) {
    const bool whole = loader.arrive(tile);
    const int row = static_cast<int>(first + tile * kTokens);
    const auto run = [&]<bool Whole>() {
      LaneReach reach;
      if (!Whole) reach.load(memory + Sizes::kReach, tile);
      unsigned part = first_part;
#pragma unroll 1
      do {
        if (Input && part == 0) {
          input.template run<Whole>(to.dx, call, channel0, row, memory, tile, reach);
        } else if (kRanksPart && part == 1) {
          ranks.template run<Whole>(dz_sums(tile), memory, tile);
        } else if (kTapsPart && part == 1) {
          taps.template run<Whole>(to.dz, call, channel0, row, memory, tile);
        } else if (Weight && part == 2) {
          weight.template run<Whole>(sums, memory, tile, reach);
        } else if (kRanksPart && part == 3 && tile > 0) {
          finish_dz(tile - 1);
        }
        part = (part + 1) % 4;
      } while (part != first_part);
    };
    if (whole) {
      run.template operator()<true>();
    } else {
      run.template operator()<false>();
    }
  }
  wait_copies<0>();
  if (kRanksPart) {
    __syncthreads();
    finish_dz(tiles - 1);
  }
  if (Weight) {
    const std::int64_t taps_count = call.width * std::int64_t{call.channels};
    store_weights(to.weight_partial + chunk * (kHeadwise ? 1 : 1 + call.rank) * taps_count, sums,
                  call, channel0);
  }
}

}  // namespace convoy::cuda::mma_conv
