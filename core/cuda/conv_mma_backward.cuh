// The parts of the backward pass of low-rank convolutions on the matrix units, each of a tile of 32
// tokens and a warp's 16 channels: dx from filters made again, and from the products p_w[t, d] =
// dy[t, d] x[t - w, d], rounded to bf16,
//
//   dz^T = sum_w u_w p_w^T    du_w^T = p_w^T z    ds_w^T = p_w^T 1
//
// which take p straight and turned; so x and dy are loaded in both orders. Where matrix i of 8 rows
// has every fourth token from i on, x of a tap w earlier is the matrix i - w.
#pragma once

#include "core/cuda/conv_mma_filters.cuh"

namespace convoy::cuda::mma_conv {

constexpr int kDzTile = kTokens * kRanks;  // values of dz

// Shared memory also holds u and, of two tiles by turns, what each warp adds to dz.
template <int Warps>
struct BackwardBlock : Block<Warps, 1, false, true> {
  using Base = Block<Warps, 1, false, true>;
  static constexpr int kFilters = (Base::kRingBytes + 127) / 128 * 128;  // where u begins
  static constexpr int kSums = kFilters + kTaps * kRanks * Base::kPitch;
  static constexpr int kSumBytes = Warps * kDzTile * 4;  // of a tile
  static constexpr int kBytes = kSums + 2 * kSumBytes;
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
  using Filters = LaneFilters<false>;

 public:
  // channel0: the block's first.
  __device__ InputPart(const MmaConvCall& call, int channel0)
      : ranks_(Filters::z_byte(call, channel0, 16)) {
    filters_[0].load(call, 0, channel0 + lane_channel<1>());
  }

  // first: the tile's first row. Whole, here and below: all of its rows exist, and no tap of theirs
  // or of the 3 after meets a document's start.
  template <bool Whole>
  __device__ void run(const Rows<bf16>& dx, const MmaConvCall& call, int channel0, int first,
                      std::uint32_t memory, unsigned tile, const LaneReach& reach) const {
    Pairs<1> dy[kSeen];
    uint2 z[kOwn - 1];
    ranks_.template load<kOwn - 1>(z, memory + Sizes::kZ, tile);
    column_.load(dy, memory + Sizes::kRowsBytes, tile);
    const LaneStore<1> to(dx, call, channel0, unknown(first));
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      Pairs<1> sums[2];
      apply_filters<false, !Whole>(sums, filters_, z, dy, reach, i);
      to.template store<Whole>(i, sums[0]);
      to.template store<Whole>(i + kOwn / 2, sums[1]);
    }
  }

 private:
  LaneColumn<1, Sizes::kPitch, 0> column_;
  LaneRanks<Sizes::kZPitch> ranks_;
  Filters filters_[1];
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

  __device__ void load(Set& to, std::uint32_t memory, unsigned tile) const {
    const std::uint32_t own = places_.first(memory, tile), before = places_.second(memory, tile);
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
                                     threadIdx.x / 32 * 32 + lane / 8 % 2 * 16);
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

// What the warp's channels add to dz.
template <class Sizes>
class RanksPart {
 public:
  __device__ RanksPart()
      : filters_((threadIdx.x % 32 / 16 * 8 + threadIdx.x % 8) * Sizes::kPitch +
                 ((threadIdx.x / 32 * 32 + threadIdx.x / 8 % 2 * 16) ^ threadIdx.x % 8 * 16)),
        sums_((threadIdx.x / 32 * kDzTile + threadIdx.x % 32 * 4) * 4) {}

  // Leaves it as [pair of matrices, half of the ranks, lane, 4], the lanes' accumulators: rows are
  // tokens, columns ranks.
  template <bool Whole>
  __device__ void run(std::uint32_t to, std::uint32_t memory, unsigned tile) const {
    const std::uint32_t filters = memory + Sizes::kFilters + filters_;
    int far[4];
    rows_.template load_reach<Whole>(far, memory, tile);
    float dz[2][2][4] = {};
    typename StraightRows<Sizes>::Set rows;
    rows_.load(rows, memory, tile);
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      Pair u[4];  // of 8 ranks and 8 channels each
      load_matrices(u, filters + w * kRanks * Sizes::kPitch);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        Pair p[4];
        rows.template multiply<Whole>(p, 2 * i, w, far);
        multiply_add(dz[i][0], p, u[0], u[1]);
        multiply_add(dz[i][1], p, u[2], u[3]);
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
  constexpr int kValues = kDzTile / std::bit_floor(unsigned{Sizes::kThreads});  // of a thread
  static_assert(kValues == 2 || kValues == 4, "what moves as one");
  if (threadIdx.x * kValues >= kDzTile) return;
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

// du and ds of all tiles of a warp, as accumulators: rows g and g + 8 are the warp's channels, the
// columns ranks (of both halves) and taps.
struct WeightSums {
  float u[kTaps][2][4], s[4];
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
  __device__ void run(WeightSums& sums, std::uint32_t memory, unsigned tile,
                      const LaneReach& reach) const {
    Pair x[2][2][4], dy[2][4], z[2][4];  // of 8 channels: 4 tokens before, own; of 8 ranks
    const std::uint32_t own = rows_.first(memory, tile), before = rows_.second(memory, tile);
    const std::uint32_t z_rows = ring_at<Sizes::kZPitch>(memory + Sizes::kZ, ranks_, tile);
#pragma unroll
    for (int q = 0; q < 2; ++q) load_matrices_transposed(z[q], z_rows ^ q * 16);
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      load_matrices_transposed(x[q][0], before ^ q * 16);
      load_matrices_transposed(x[q][1], own ^ q * 16);
      load_matrices_transposed(dy[q], (own ^ q * 16) + Sizes::kRowsBytes);
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
        multiply_add(sums.u[w][0], p, z[0][k], z[0][k + 1]);
        multiply_add(sums.u[w][1], p, z[1][k], z[1][k + 1]);
        multiply_add(sums.s, p, ones, ones);
      }
    }
  }

 private:
  // Of the row whose address the lane 8 i + k gives: the i-th of four, a number of tokens further.
  static __device__ unsigned place(int token) {
    return ring_place<Sizes::kPitch>(kLead + threadIdx.x % 8 * 4 + threadIdx.x % 32 / 8 + token,
                                     threadIdx.x / 32 * 32);
  }
  Places<Sizes::kPitch> rows_;
  int ranks_;
};

// partial [1 + rank, width, channels] of one chunk: ds, then du.
__device__ inline void store_weights(float* partial, const WeightSums& sums,
                                     const MmaConvCall& call, int channel0) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
  const std::int64_t channels = call.channels;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int channel = channel0 + threadIdx.x / 32 * 16 + i / 2 * 8 + g;
    const int column = 2 * c + i % 2;
    const bool there = channel < call.channels;
    if (there && column < call.width) partial[column * channels + channel] = sums.s[i];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int rank = half * 8 + column;
      float* to = partial + (1 + rank) * call.width * channels + channel;
#pragma unroll
      for (int w = 0; w < kTaps; ++w) {
        if (there && rank < call.rank && w < call.width) to[w * channels] = sums.u[w][half][i];
      }
    }
  }
}

// dz_partial [channel blocks, tiles, kDzTile], weight_partial [chunks, 1 + rank, width, channels].
struct BackwardTargets {
  Rows<bf16> dx, dz;
  float *dz_partial, *weight_partial;
};

// All of a block of threads, whose channels are the stripe-th and whose rows the chunk-th of the
// call: dx, and the partial sums of dz, du and ds. shared: of Sizes::kBytes.
template <class Sizes, bool Input, bool Weight>
__device__ inline void backward_block(const BackwardTargets& to, const MmaConvCall& call,
                                      unsigned stripe, unsigned chunk, const char* shared) {
  const std::uint32_t memory = shared_address(shared);
  const int channel0 = static_cast<int>(stripe) * Sizes::kChannels;
  const std::int64_t first = chunk * call.chunk_rows;
  const unsigned tiles = static_cast<unsigned>(
      ceil_div<std::int64_t>(min(call.chunk_rows, call.rows - first), kTokens));
  if (Input) load_shared_filters<Sizes>(memory + Sizes::kFilters, call, channel0);
  RowLoader<Sizes, true> loader(memory, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  const InputPart<Sizes> input(call, channel0);
  const RanksPart<Sizes> ranks;
  const WeightPart<Sizes> weight;
  WeightSums sums = {};
  const auto dz_sums = [&](unsigned tile) {
    return memory + Sizes::kSums + tile % 2 * Sizes::kSumBytes;
  };
  const auto finish_dz = [&](unsigned tile) {
    const std::int64_t all = ceil_div<std::int64_t>(call.rows, kTokens);
    add_channels<Sizes>(to.dz_partial + (stripe * all + first / kTokens + tile) * kDzTile,
                        dz_sums(tile));
  };
  for (unsigned tile = 0; tile < tiles; ++tile) {
    const bool whole = loader.arrive(tile);
    if (Input && tile > 0) finish_dz(tile - 1);
    const int row = static_cast<int>(first + tile * kTokens);
    // The parts meet as a warp, so that the compiler does not mix them and run out of registers.
    const auto run = [&]<bool Whole>() {
      LaneReach reach;
      if (!Whole) reach.load(memory + Sizes::kReach, tile);
      if (Input) input.template run<Whole>(to.dx, call, channel0, row, memory, tile, reach);
      __syncwarp();
      if (Input) ranks.template run<Whole>(dz_sums(tile), memory, tile);
      __syncwarp();
      if (Weight) weight.template run<Whole>(sums, memory, tile, reach);
    };
    if (whole) {
      run.template operator()<true>();
    } else {
      run.template operator()<false>();
    }
  }
  wait_copies<0>();
  if (Input) {
    __syncthreads();
    finish_dz(tiles - 1);
  }
  if (Weight) {
    const std::int64_t taps = call.width * std::int64_t{call.channels};
    store_weights(to.weight_partial + chunk * (1 + call.rank) * taps, sums, call, channel0);
  }
}

}  // namespace convoy::cuda::mma_conv
