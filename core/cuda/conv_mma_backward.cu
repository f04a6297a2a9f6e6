// Backward of low-rank convolutions in one pass over x and dy: dx from filters made again, and from
// the products p_w[t, d] = dy[t, d] x[t - w, d], rounded to bf16,
//
//   dz^T = sum_w u_w p_w^T    du_w^T = p_w^T z    ds_w^T = p_w^T 1
//
// which take p straight and turned; so x and dy are loaded in both orders. Sums over channel blocks
// (dz) and over chunks of rows (du, ds) go through device memory and are added in order.
#include <cstdlib>

#include "core/cuda/conv_mma_filters.cuh"
#include "core/cuda/partial_sums.cuh"

namespace convoy::cuda {
namespace {

using namespace mma_conv;

constexpr int kDzTile = kTokens * kRanks;  // values

constexpr int kSets = 2;  // of 16 channels, of a warp
constexpr int kSmWarps = 8;

template <int Warps>
struct BackwardBlock : Block<Warps, kSets, false, true> {
  using Base = Block<Warps, kSets, false, true>;
  static constexpr int kFilters = (Base::kRingBytes + 127) / 128 * 128;  // where u begins
  static constexpr int kSums = kFilters + kTaps * kRanks * Base::kPitch;
  static constexpr int kSumBytes = Warps * kDzTile * 4;  // of a tile's dz; there are two
  static constexpr int kBytes = kSums + 2 * kSumBytes;
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

// Of a value that the compiler shall not know, so that what is made of it is made here.
template <class T>
__device__ inline T unknown(T v) {
  asm volatile("" : "+r"(v));
  return v;
}

// dx of 32 tokens and a warp's channels.
template <class Sizes>
class InputPart {
  using Filters = LaneFilters<false>;

 public:
  __device__ InputPart(const MmaConvCall& call, int channel0)
      : ranks_(Filters::z_byte(call, channel0, 16 * kSets)) {
#pragma unroll
    for (int n = 0; n < kSets; ++n) {
      filters_[n].load(call, 0, channel0 + lane_channel<kSets>() + 2 * n);
    }
  }

  // The tile's first row is `first`.
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
      to.store<Whole>(i, sums[0]);
      to.store<Whole>(i + kOwn / 2, sums[1]);
    }
  }

 private:
  LaneColumn<kSets, Sizes::kPitch, 0> column_;
  LaneRanks<Sizes::kZPitch> ranks_;
  Filters filters_[kSets];
};

// What a warp's channels add to dz of 32 tokens. Matrix i of 8 tokens has every fourth token from i
// on; so x of a tap w earlier is the matrix i - w. Products of matrices i and i + 1 are a left
// operand of 16 channels' depth, u a right one.
template <class Sizes>
class RanksPart {
 public:
  __device__ RanksPart()
      : rows_(place(0), place(-4)),
        filters_(threadIdx.x % 32 / 16 * 8 * Sizes::kPitch + threadIdx.x % 8 * Sizes::kPitch +
                 ((threadIdx.x / 32 * 32 * kSets + threadIdx.x / 8 % 2 * 16) ^ threadIdx.x % 8 * 16)),
        sums_((threadIdx.x / 32 * kDzTile + threadIdx.x % 32 * 4) * 4) {}

  // Leaves the sums as [pair of matrices, half of the ranks, lane, 4], the lane's accumulators.
  template <bool Whole>
  __device__ void run(std::uint32_t to, std::uint32_t memory, unsigned tile) const {
    const std::uint32_t own = rows_.first(memory, tile), before = rows_.second(memory, tile);
    const std::uint32_t filters = memory + Sizes::kFilters + filters_;
    int far[4] = {};
    if (!Whole) load_reach(far, memory, tile);
    float dz[2][2][4] = {};
#pragma unroll
    for (int n = 0; n < kSets; ++n) {
      Pair x[4][4], dy[2][4];  // of matrices i and i + 1: 8 channels each, and the 8 after them
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load_matrices(dy[i], (own ^ n * 32) + Sizes::kRowsBytes + i * 2 * Sizes::kPitch);
        load_matrices(x[2 + i], (own ^ n * 32) + i * 2 * Sizes::kPitch);
        load_matrices(x[i], (before ^ n * 32) + i * 2 * Sizes::kPitch);
      }
#pragma unroll
      for (int w = 0; w < kTaps; ++w) {
        Pair u[4];  // of 8 ranks and 8 channels each
        load_matrices(u, (filters ^ n * 32) + w * kRanks * Sizes::kPitch);
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          Pair p[4];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int seen = i + e - w + 4;
#pragma unroll
            for (int q = 0; q < 2; ++q) {
              p[2 * q + e] = multiply_pairs(dy[i / 2][2 * e + q], x[seen / 2][seen % 2 * 2 + q]);
              if (!Whole && far[i + e] < w) p[2 * q + e] = 0;
            }
          }
          multiply_add(dz[i / 2][0], p, u[0], u[1]);
          multiply_add(dz[i / 2][1], p, u[2], u[3]);
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
  // Of the row whose address the lane gives, a number of tokens further.
  static __device__ unsigned place(int token) {
    const int lane = threadIdx.x % 32;
    return ring_place<Sizes::kPitch>(kLead + lane % 8 * 4 + lane / 16 + token,
                                     threadIdx.x / 32 * 32 * kSets + lane / 8 % 2 * 16);
  }
  static __device__ void load_reach(int (&far)[4], std::uint32_t memory, unsigned tile) {
    const int row = kLead + threadIdx.x % 32 / 4 * 4;
    const uint4 loaded = load_shared16(ring_at<4>(memory + Sizes::kReach, row * 4, tile));
    far[0] = static_cast<int>(loaded.x), far[1] = static_cast<int>(loaded.y);
    far[2] = static_cast<int>(loaded.z), far[3] = static_cast<int>(loaded.w);
  }

  Places<Sizes::kPitch> rows_;
  int filters_, sums_;
};

// du and ds of all tiles of a warp, as accumulators: rows g and g + 8 are 16 of the warp's channels,
// the columns ranks (of both halves) and taps.
struct WeightSums {
  float u[kSets][kTaps][2][4], s[kSets][4];
};

// What 32 tokens and a warp's channels add to du and ds. Matrix i of 8 tokens has every fourth token
// from i on; so x of a tap w earlier is the matrix i - w.
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
    Pair z[2][4];  // of 8 ranks
    const std::uint32_t own = rows_.first(memory, tile), before = rows_.second(memory, tile);
    const std::uint32_t z_rows = ring_at<Sizes::kZPitch>(memory + Sizes::kZ, ranks_, tile);
#pragma unroll
    for (int q = 0; q < 2; ++q) load_matrices_transposed(z[q], z_rows ^ q * 16);
#pragma unroll
    for (int n = 0; n < kSets; ++n) {
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
          multiply_add(sums.u[n][w][0], p, z[0][k], z[0][k + 1]);
          multiply_add(sums.u[n][w][1], p, z[1][k], z[1][k + 1]);
          multiply_add(sums.s[n], p, ones, ones);
        }
      }
    }
  }

 private:
  // Tokens 4 k + i (and others, further) for lane = 8 i + k.
  static __device__ unsigned place(int token) {
    return ring_place<Sizes::kPitch>(kLead + threadIdx.x % 8 * 4 + threadIdx.x % 32 / 8 + token,
                                     threadIdx.x / 32 * 32 * kSets);
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
  for (int n = 0; n < kSets; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int channel = channel0 + (threadIdx.x / 32 * kSets + n) * 16 + i / 2 * 8 + g;
      if (channel >= call.channels) break;
      const int column = 2 * c + i % 2;
      if (column < call.width) partial[column * channels + channel] = sums.s[n][i];
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

// Adds dz of a tile over the block's warps, in order.
template <class Sizes>
__device__ inline void add_channels(float* to, std::uint32_t sums) {
  constexpr int kValues = kDzTile / Sizes::kThreads;  // of a thread
  static_assert(kValues == 2 || kValues == 4, "what moves as one");
  float sum[kValues] = {};
#pragma unroll
  for (int warp = 0; warp < Sizes::kThreads / 32; ++warp) {
    const std::uint32_t from = sums + (warp * kDzTile + threadIdx.x * kValues) * 4;
    if constexpr (kValues == 2) {
      const uint2 more = load_shared8(from);
      sum[0] += __uint_as_float(more.x), sum[1] += __uint_as_float(more.y);
    } else {
      const uint4 more = load_shared16(from);
      sum[0] += __uint_as_float(more.x), sum[1] += __uint_as_float(more.y);
      sum[2] += __uint_as_float(more.z), sum[3] += __uint_as_float(more.w);
    }
  }
  Pack<float, kValues> all;
#pragma unroll
  for (int i = 0; i < kValues; ++i) all.element[i] = sum[i];
  store_pack(to + threadIdx.x * kValues, all);
}

// dz_partial [channel blocks, tiles, kDzTile], weight_partial [chunks, 1 + rank, width, channels].
struct BackwardTargets {
  Rows<bf16> dx, dz;
  float *dz_partial, *weight_partial;
  unsigned turns;
};

template <bool Input, bool Weight, int Warps>
__global__ void __launch_bounds__(32 * Warps, kSmWarps / Warps)
    backward_kernel(BackwardTargets to, const __grid_constant__ MmaConvCall call) {
  using Sizes = BackwardBlock<Warps>;
  extern __shared__ __align__(1024) char bytes[];
  wait_for_previous();
  allow_next();
  const std::uint32_t memory = shared_address(bytes);
  const int channel0 = blockIdx.x * Sizes::kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
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
    add_channels<Sizes>(to.dz_partial + (blockIdx.x * all + first / kTokens + tile) * kDzTile,
                        dz_sums(tile));
  };
  // Each of the warps that share a scheduler begins a tile with another of its parts, so that the
  // matrix units, the FMA units and shared memory are asked by turns. What the parts are is not
  // known to the compiler, which so does not mix them and run out of registers.
  const unsigned first_part = threadIdx.x / 128 * 2 * to.turns;
  for (unsigned tile = 0; tile < tiles; ++tile) {
    const bool whole = loader.arrive(tile);
    const auto run = [&]<bool Whole>() {
      LaneReach reach;
      if (!Whole) reach.load(memory + Sizes::kReach, tile);
      unsigned part = first_part;
#pragma unroll 1
      do {
        if (Input && part == 0) {
          input.template run<Whole>(to.dx, call, channel0,
                                    static_cast<int>(first + tile * kTokens), memory, tile, reach);
        } else if (Input && part == 1) {
          ranks.template run<Whole>(dz_sums(tile), memory, tile);
        } else if (Weight && part == 2) {
          weight.template run<Whole>(sums, memory, tile, reach);
        } else if (Input && part == 3 && tile > 0) {
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
  if (Input) {
    __syncthreads();
    finish_dz(tiles - 1);
  }
  if (Weight) {
    store_weights(
        to.weight_partial + blockIdx.y * std::int64_t{1 + call.rank} * call.width * call.channels,
        sums, call, channel0);
  }
}

struct DzSums {
  Rows<bf16> dz;
  const float* partial;
  std::int64_t rows, tiles;  // of kTokens rows
  int rank, blocks;
};

// Adds dz of the lane's accumulator over channel blocks, in order: dz[token, rank] for two tokens
// that follow each other and two ranks. quad: of the tile's kDzTile / 4.
__device__ inline void add_blocks(const DzSums& to, std::int64_t tile, int quad) {
  if (tile >= to.tiles) return;
  const float* from = to.partial + tile * kDzTile + quad * 4;
  Pack<float, 4> sum = {};
#pragma unroll 8
  for (int block = 0; block < to.blocks; ++block) {
    const auto more = load_pack<4>(from + block * to.tiles * kDzTile);
#pragma unroll
    for (int i = 0; i < 4; ++i) sum.element[i] += more.element[i];
  }
  const int lane = quad % 32;
  const std::int64_t t = tile * kTokens + lane / 4 * 4 + quad / 64 * 2;
  const int rank = quad / 32 % 2 * 8 + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (t + i / 2 >= to.rows || rank + i % 2 >= to.rank) continue;
    to.dz.row(t + i / 2)[rank + i % 2] = __float2bfloat16_rn(sum.element[i]);
  }
}

constexpr int kSumTiles = kSumLanes * kSumSlices * 4 / kDzTile;  // of a block
constexpr int kSumColumns = 4;                                   // of a lane

// The last sums of both kinds, in order: the first `weight_blocks` blocks add chunks of rows, the
// others dz over channel blocks.
__global__ void __launch_bounds__(kSumLanes* kSumSlices)
    add_partials_kernel(ConvWeightSums<float> weights, unsigned weight_blocks, DzSums to) {
  wait_for_previous();
  if (blockIdx.x < weight_blocks) return add_chunks<kSumColumns>(weights, blockIdx.x);
  const int thread = threadIdx.y * kSumLanes + threadIdx.x;
  const std::int64_t first = std::int64_t{blockIdx.x - weight_blocks} * kSumTiles;
  add_blocks(to, first + thread * 4 / kDzTile, thread % (kDzTile / 4));
}

template <int Warps>
auto kernel_for(ConvWants wants) {
  switch (wants) {
    case ConvWants::input: return backward_kernel<true, false, Warps>;
    case ConvWants::weight: return backward_kernel<false, true, Warps>;
    case ConvWants::both: break;
  }
  return backward_kernel<true, true, Warps>;
}

template <int Warps>
void backward(const ConvCall& call, const ConvGradients& g, const Tensor& dy, const Tensor& x,
              ConvWants wants) {
  using Sizes = BackwardBlock<Warps>;
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  const MmaConvCall c = describe(call, x, dy, Sizes::kChannels, 132 * kSmWarps / Warps);
  const dim3 grid = grid_of(c, Sizes::kChannels);
  const std::int64_t tiles = ceil_div<std::int64_t>(c.rows, kTokens);
  const std::int64_t dz_count = input ? grid.x * tiles * kDzTile : 0;
  const std::int64_t static_count = std::int64_t{c.width} * c.channels;
  const std::int64_t weight_count = weight ? (1 + c.rank) * static_count : 0;
  call.workspace.begin(static_cast<std::size_t>(dz_count + grid.y * weight_count) * sizeof(float) +
                       512);
  auto* dz = call.workspace.take<float>(dz_count);
  auto* weights = call.workspace.take<float>(grid.y * weight_count);
  const BackwardTargets to{rows_of<bf16>(g.dx), rows_of<bf16>(g.dgenerated), dz, weights, std::getenv("CONV_TURNS") ? static_cast<unsigned>(std::atoi(std::getenv("CONV_TURNS"))) : 1u};
  launch_overlapped(kernel_for<Warps>(wants), grid, Sizes::kThreads, Sizes::kBytes, call.stream, to,
                    c);
  const ConvWeightSums<float> weight_sums{weight ? data_of<float>(g.ds) : nullptr,
                                          weight ? data_of<float>(g.du) : nullptr,
                                          weights,
                                          static_count,
                                          weight_count,
                                          grid.y};
  const unsigned weight_blocks = weight_sums.blocks<kSumColumns>();
  const auto dz_blocks = static_cast<unsigned>(input ? ceil_div<std::int64_t>(tiles, kSumTiles) : 0);
  launch_overlapped(add_partials_kernel, weight_blocks + dz_blocks, dim3(kSumLanes, kSumSlices), 0,
                    call.stream, weight_sums, weight_blocks,
                    DzSums{to.dz, dz, c.rows, tiles, c.rank, static_cast<int>(grid.x)});
}

}  // namespace

bool mma_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                       ConvWants wants) {
  if (!takes(call, {x, dy, wants == ConvWants::weight ? dy : g.dx})) return false;
  // Wide blocks, which halve the partial sums of dz, unless that leaves half of one without channels.
  if (ceil_div<std::int64_t>(x.cols(), BackwardBlock<kSmWarps / 2>::kChannels) % 2 == 0) {
    backward<kSmWarps>(call, g, dy, x, wants);
  } else {
    backward<kSmWarps / 2>(call, g, dy, x, wants);
  }
  return true;
}

}  // namespace convoy::cuda
