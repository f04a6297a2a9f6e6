// Backward of low-rank convolutions in one pass over x and dy: dx from filters made again, and from
// the products p_w[t, d] = dy[t, d] x[t - w, d], rounded to bf16,
//
//   dz^T = sum_w u_w p_w^T    du_w^T = p_w^T z    ds_w^T = p_w^T 1
//
// which take p straight and turned; so x and dy are loaded in both orders. Sums over channel blocks
// (dz) and over chunks of rows (du, ds) go through device memory and are added in order.
#include "core/cuda/conv_mma_filters.cuh"
#include "core/cuda/partial_sums.cuh"

namespace convoy::cuda {
namespace {

using namespace mma_conv;

constexpr int kDzTokens = 16, kDzChannels = 32;  // of a warp
constexpr int kDzTile = kDzTokens * kRanks;      // values

template <int Warps>
struct BackwardBlock : Block<Warps, 1, false, true> {
  using Base = Block<Warps, 1, false, true>;
  static constexpr int kSmWarps = Warps % 6 == 0 ? 12 : 16;              // of an SM
  static constexpr int kGroups = Warps / 2;                              // of channels in dz
  static constexpr int kFilters = (Base::kRingBytes + 127) / 128 * 128;  // where u begins
  static constexpr int kSums = kFilters + kTaps * kRanks * Base::kPitch;
  static constexpr int kSumBytes = Warps * kDzTile * 4;  // of a tile, of which there are two
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

// dx of 32 tokens and 16 channels.
template <class Sizes>
class InputPart {
  using Filters = LaneFilters<false>;

 public:
  __device__ InputPart(const MmaConvCall& call, int channel0)
      : ranks_(Filters::z_byte(call, channel0, 16)) {
    filters_[0].load(call, channel0 + threadIdx.x / 32 * 16, channel0 + lane_channel<1>());
  }

  template <bool Whole>
  __device__ void run(const LaneStore<1>& dx, std::uint32_t memory, unsigned tile,
                      const LaneReach& reach) const {
    Pairs<1> dy[kSeen];
    uint2 z[kOwn - 1];
    ranks_.template load<kOwn - 1>(z, memory + Sizes::kZ, tile);
    column_.load(dy, memory + Sizes::kRowsBytes, tile);
#pragma unroll
    for (int i = 0; i < kOwn / 2; ++i) {
      Pairs<1> sums[2];
      apply_filters<false, !Whole>(sums, filters_, z, dy, reach, i);
      dx.store<Whole>(i, sums[0]);
      dx.store<Whole>(i + kOwn / 2, sums[1]);
    }
  }

 private:
  LaneColumn<1, Sizes::kPitch, 0> column_;
  LaneRanks<Sizes::kZPitch> ranks_;
  Filters filters_[1];
};

// dz of 32 channels and of 16 tokens, those 4 k + 2 h and 4 k + 2 h + 1 of half h, put into shared
// memory as [rank, token]. Matrix i has the 8 tokens 4 k + 2 h + i; so x of a tap w earlier is the
// matrix i - w.
template <class Sizes>
struct RanksPart {
  // Of matrix rows k = lane % 8: 4 and 2 tokens before the first; the first, and u.
  Places<Sizes::kPitch> earlier, own;
  int sums;

  __device__ RanksPart()
      : earlier(place(-4), place(-2)),
        own(place(0),
            lane() % 16 * Sizes::kPitch + ((first_column() + lane() / 16 * 16) ^ lane() % 8 * 16)),
        sums(kept((warp() * kDzTile + lane() / 4 * kDzTokens + lane() % 4 * 4) * 4)) {}

  template <bool Whole>
  __device__ void run(std::uint32_t to, std::uint32_t memory, unsigned tile) const {
    Pair x[5][4], dy[2][4];
    const std::uint32_t at[3] = {earlier.first(memory, tile), earlier.second(memory, tile),
                                 own.first(memory, tile)};
#pragma unroll
    for (int i = 0; i < 5; ++i) {
      const std::uint32_t row = at[(i + 1) / 2] + (i + 1) % 2 * Sizes::kPitch;
      load_matrices(x[i], row);
      if (i >= 3) load_matrices(dy[i - 3], row + Sizes::kRowsBytes);
    }
    const std::uint32_t filters = own.second(memory + Sizes::kFilters, 0);
    int far[2];
    if (!Whole) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = kLead + lane() / 4 * 4 + half() * 2 + i;
        far[i] = load_shared4(ring_at<4>(memory + Sizes::kReach, row * 4, tile));
      }
    }
    float dz[2][4] = {};
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
#pragma unroll
      for (int block = 0; block < 2; ++block) {
        Pair u[4];
        load_matrices(u, (filters ^ block * 32) + w * kRanks * Sizes::kPitch);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          Pair p[2];
#pragma unroll
          for (int q = 0; q < 2; ++q) {
            p[q] = multiply_pairs(dy[i][2 * block + q], x[i - w + 3][2 * block + q]);
            if (!Whole && far[i] < w) p[q] = 0;
          }
          multiply_add(dz[i], u, p[0], p[1]);
        }
      }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      store_shared16(to + sums + h * 8 * kDzTokens * 4, dz[0][2 * h], dz[1][2 * h],
                     dz[0][2 * h + 1], dz[1][2 * h + 1]);
    }
  }

 private:
  static __device__ int lane() { return threadIdx.x % 32; }
  static __device__ int warp() { return threadIdx.x / 32; }
  static __device__ int half() { return warp() / Sizes::kGroups; }
  static __device__ int first_column() { return warp() % Sizes::kGroups * 2 * kDzChannels; }
  static __device__ unsigned place(int token) {
    return ring_place<Sizes::kPitch>(kLead + lane() % 8 * 4 + half() * 2 + token,
                                     first_column() + lane() / 8 * 16);
  }
};

// du and ds of all tiles of a warp, as accumulators: rows g and g + 8 are the warp's channels, the
// columns ranks (of both halves) and taps.
struct WeightSums {
  float u[kTaps][2][4], s[4];
};

// What 32 tokens and 16 channels add to du and ds. Matrix i of 8 tokens has every fourth token from
// i on; so x of a tap w earlier is the matrix i - w.
template <class Sizes>
struct WeightPart {
  Places<Sizes::kPitch> rows;  // tokens 4 k + i and 4 k + i - 4, for lane = 8 i + k
  int ranks;

  __device__ WeightPart()
      : rows(place(0), place(-4)),
        ranks(kept(z_place<Sizes::kZPitch>(kLead / 4 + threadIdx.x % 8,
                                           threadIdx.x % 32 / 8 * Sizes::kZPitch))) {}

  template <bool Whole>
  __device__ void run(WeightSums& sums, std::uint32_t memory, unsigned tile,
                      const LaneReach& reach) const {
    Pair x[2][2][4], dy[2][4], z[2][4];  // of 8 channels: 4 tokens before, own; of 8 ranks
    const std::uint32_t own = rows.first(memory, tile), before = rows.second(memory, tile);
    const std::uint32_t z_rows = ring_at<Sizes::kZPitch>(memory + Sizes::kZ, ranks, tile);
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      load_matrices_transposed(x[q][0], before ^ q * 16);
      load_matrices_transposed(x[q][1], own ^ q * 16);
      load_matrices_transposed(dy[q], (own ^ q * 16) + Sizes::kRowsBytes);
      load_matrices_transposed(z[q], z_rows ^ q * 16);
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
  static __device__ unsigned place(int token) {
    return ring_place<Sizes::kPitch>(kLead + threadIdx.x % 8 * 4 + threadIdx.x % 32 / 8 + token,
                                     threadIdx.x / 32 * 32);
  }
};

// partial [1 + rank, width, channels] of one chunk: ds, then du.
__device__ inline void store_weights(float* partial, const WeightSums& sums,
                                     const MmaConvCall& call, int channel0) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
  const std::int64_t channels = call.channels;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int channel = channel0 + threadIdx.x / 32 * 16 + i / 2 * 8 + g;
    if (channel >= call.channels) break;
    const int column = 2 * c + i % 2;
    if (column < call.width) partial[column * channels + channel] = sums.s[i];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int rank = half * 8 + column;
      if (rank >= call.rank) break;
#pragma unroll
      for (int w = 0; w < kTaps; ++w) {
        if (w >= call.width) break;
        partial[((1 + rank) * call.width + w) * channels + channel] = sums.u[w][half][i];
      }
    }
  }
}

// Token of a tile whose dz lies at `place` of half `half` of the tile.
__device__ inline int dz_token(int half, int place) { return place / 2 * 4 + half * 2 + place % 2; }

// Adds dz of a tile over the block's channels, in order. to [2 halves of the tile, rank, place].
template <class Sizes>
__device__ inline void add_channels(float* to, std::uint32_t sums) {
#pragma unroll
  for (int part = 0; part < ceil_div(2 * kDzTile, Sizes::kThreads); ++part) {
    const int i = part * Sizes::kThreads + threadIdx.x;
    if (i >= 2 * kDzTile) break;
    const std::uint32_t from = sums + (i / kDzTile * Sizes::kGroups * kDzTile + i % kDzTile) * 4;
    float sum = 0;
#pragma unroll
    for (int group = 0; group < Sizes::kGroups; ++group) {
      sum += __int_as_float(load_shared4(from + group * kDzTile * 4));
    }
    to[i] = sum;
  }
}

// dz_partial [channel blocks, tiles, 2, kRanks, kDzTokens], weight_partial [chunks, 1 + rank,
// width, channels].
struct BackwardTargets {
  Rows<bf16> dx, dz;
  float *dz_partial, *weight_partial;
};

template <bool Input, bool Weight, int Warps>
__global__ void __launch_bounds__(32 * Warps, BackwardBlock<Warps>::kSmWarps / Warps)
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
  float* dz_partial =
      to.dz_partial +
      (blockIdx.x * ceil_div<std::int64_t>(call.rows, kTokens) + first / kTokens) * 2 * kDzTile;
  const auto dz_sums = [&](unsigned tile) {
    return memory + Sizes::kSums + tile % 2 * Sizes::kSumBytes;
  };
  const auto finish_dz = [&](unsigned tile) {
    add_channels<Sizes>(dz_partial, dz_sums(tile));
    dz_partial += 2 * kDzTile;
  };
  for (unsigned tile = 0; tile < tiles; ++tile) {
    const bool whole = loader.arrive(tile);
    if (Input && tile > 0) finish_dz(tile - 1);
    const LaneStore<1> dx(to.dx, call, channel0, static_cast<int>(first + tile * kTokens));
    // The parts meet as a warp, so that the compiler does not mix them and run out of registers.
    LaneReach reach;
    if (whole) {
      if (Input) input.template run<true>(dx, memory, tile, reach);
      __syncwarp();
      if (Input) ranks.template run<true>(dz_sums(tile), memory, tile);
      __syncwarp();
      if (Weight) weight.template run<true>(sums, memory, tile, reach);
    } else {
      reach.load(memory + Sizes::kReach, tile);
      if (Input) input.template run<false>(dx, memory, tile, reach);
      __syncwarp();
      if (Input) ranks.template run<false>(dz_sums(tile), memory, tile);
      __syncwarp();
      if (Weight) weight.template run<false>(sums, memory, tile, reach);
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

// The last sums of both kinds, in order: the first `weight_blocks` blocks add chunks of rows, each
// block after them half a tile of dz over channel blocks.
__global__ void __launch_bounds__(kSumLanes* kSumSlices)
    add_partials_kernel(ConvWeightSums<float> weights, unsigned weight_blocks, DzSums to) {
  static_assert(kSumLanes * kSumSlices == kDzTile, "a thread adds one value of dz");
  wait_for_previous();
  if (blockIdx.x < weight_blocks) return add_chunks<1>(weights, blockIdx.x);
  const std::int64_t part = blockIdx.x - weight_blocks;
  const int thread = threadIdx.y * kSumLanes + threadIdx.x;
  const int rank = thread / kDzTokens;
  const std::int64_t t =
      part / 2 * kTokens + dz_token(static_cast<int>(part % 2), thread % kDzTokens);
  if (t >= to.rows || rank >= to.rank) return;
  const float* from = to.partial + part * kDzTile + thread;
  float sum = 0;
#pragma unroll 8
  for (int block = 0; block < to.blocks; ++block) sum += from[block * to.tiles * 2 * kDzTile];
  to.dz.row(t)[rank] = __float2bfloat16_rn(sum);
}

// 12 warps an SM make all gradients at once, 16 warps those of input or weights.
template <int Warps>
auto kernel_for(ConvWants wants) {
  if constexpr (BackwardBlock<Warps>::kSmWarps == 12) {
    return backward_kernel<true, true, Warps>;
  } else {
    return wants == ConvWants::input ? backward_kernel<true, false, Warps>
                                     : backward_kernel<false, true, Warps>;
  }
}

template <int Warps>
void backward(const ConvCall& call, const ConvGradients& g, const Tensor& dy, const Tensor& x,
              ConvWants wants) {
  using Sizes = BackwardBlock<Warps>;
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  const MmaConvCall c = describe(call, x, dy, Sizes::kChannels, 132 * Sizes::kSmWarps / Warps);
  const dim3 grid = grid_of(c, Sizes::kChannels);
  const std::int64_t tiles = ceil_div<std::int64_t>(c.rows, kTokens);
  const std::int64_t dz_count = input ? grid.x * tiles * 2 * kDzTile : 0;
  const std::int64_t static_count = std::int64_t{c.width} * c.channels;
  const std::int64_t weight_count = weight ? (1 + c.rank) * static_count : 0;
  call.workspace.begin(static_cast<std::size_t>(dz_count + grid.y * weight_count) * sizeof(float) +
                       512);
  auto* dz = call.workspace.take<float>(dz_count);
  auto* weights = call.workspace.take<float>(grid.y * weight_count);
  const BackwardTargets to{rows_of<bf16>(g.dx), rows_of<bf16>(g.dgenerated), dz, weights};
  launch_overlapped(kernel_for<Warps>(wants), grid, Sizes::kThreads, Sizes::kBytes, call.stream, to,
                    c);
  const ConvWeightSums<float> weight_sums{weight ? data_of<float>(g.ds) : nullptr,
                                          weight ? data_of<float>(g.du) : nullptr,
                                          weights,
                                          static_count,
                                          weight_count,
                                          grid.y};
  const unsigned weight_blocks = weight_sums.blocks<1>();
  const auto dz_blocks = static_cast<unsigned>(input ? 2 * tiles : 0);
  launch_overlapped(add_partials_kernel, weight_blocks + dz_blocks, dim3(kSumLanes, kSumSlices), 0,
                    call.stream, weight_sums, weight_blocks,
                    DzSums{to.dz, dz, c.rows, tiles, c.rank, static_cast<int>(grid.x)});
}

// By blocks of `Wide` warps, which halve the partial sums of dz, or of half as many, where that
// leaves fewer warps without channels.
template <int Wide>
void backward_by_width(const ConvCall& call, const ConvGradients& g, const Tensor& dy,
                       const Tensor& x, ConvWants wants) {
  constexpr int kNarrow = Wide / 2, kChannels = 16 * kNarrow;
  if (ceil_div<std::int64_t>(x.cols(), kChannels) % 2 == 0) {
    backward<Wide>(call, g, dy, x, wants);
  } else {
    backward<kNarrow>(call, g, dy, x, wants);
  }
}

}  // namespace

bool mma_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                       ConvWants wants) {
  if (!takes(call, {x, dy, wants == ConvWants::weight ? dy : g.dx})) return false;
  if (wants == ConvWants::both) {  // takes more registers than 16 warps an SM would have
    backward_by_width<12>(call, g, dy, x, wants);
  } else {
    backward_by_width<16>(call, g, dy, x, wants);
  }
  return true;
}

}  // namespace convoy::cuda
