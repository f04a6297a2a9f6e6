// Low-rank filters K[t, w, d] = s[w, d] + sum_r z[t, r] u[r, w, d] in bf16 on the matrix units, for
// up to 16 ranks and 4 taps; shorter filters are padded with zeros. A warp walks down the rows in
// tiles of 32 tokens by 32 channels, in such an order of rows and columns that a lane owns 4
// consecutive tokens and 8 consecutive channels of every filter, input and output:
//
//   accumulator (tile m, half h) of lane 4 g + c: token 4 g + 2 m + h
//   column 2 c + e of the tile j of 8 columns:    channel 8 c + 2 j + e, stored at place 8 j + 2 c
//   + e depth k of the ranks:                          rank 4 (k / 2) + k % 2 below 8, 2 more from
//   8 on
//
// Filters are never stored. The backward pass reads x and dy once: dx from filters made again, and
// from the products p = dy x (rounded to bf16) dz = p u, du = z^T p and ds = 1^T p. Half of the
// warps do what takes filters (dx), the other half what takes products (dz, du, ds), so that each
// fits in 128 registers. Rows arrive in a ring in shared memory while the tile before is
// computed. Sums over channel blocks (dz) and over chunks of rows (du, ds) go through device memory
// and are added in order.
#include "core/conv_shape.h"
#include "core/cuda/conv.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/mma.cuh"
#include "core/cuda/partial_sums.cuh"

namespace convoy::cuda {
namespace {

constexpr int kTokens = 32;  // of a tile
constexpr int kRanks = 16, kTaps = 4;
constexpr int kRing = 4 * kTokens;  // rows
constexpr int kLead = 4;            // rows of the ring before a chunk's first row
constexpr int kForwardWarps = 4, kBackwardWarps = 8;
constexpr int kSumPitch = 5 * 4 * kRanks;  // bytes of 4 tokens of one warp's dz, gap included

// A block of 32 channels for each of `Warps` warps, and its shared memory in bytes. Four rows of z
// are followed by a gap that sets the next four off.
template <int Warps>
struct Block {
  static constexpr int kThreads = 32 * Warps;  // of one warp for each 32 channels
  static constexpr int kChannels = 32 * Warps;
  static constexpr int kPitch = kChannels * 2 + 16;  // of a row of the ring and of u
  static constexpr int kRowsBytes = kRing * kPitch;
  static constexpr int kZBytes = kRing / 4 * 5 * 2 * kRanks;
  static constexpr int kReachBytes = kRing * 4;
  static constexpr int kFilterBytes = kTaps * kRanks * kPitch + kTaps * kChannels / 2 * 16;
  static constexpr int kForwardBytes = kRowsBytes + kZBytes + kReachBytes + kFilterBytes;
  static constexpr int kSumBytes = Warps * kTokens / 4 * kSumPitch;
};

struct LowrankCall {
  Rows<const bf16> x, dy, z;
  const bf16 *s, *u;
  const std::int32_t* reach;
  int rows, chunk_rows;
  int channels, rank, width;
  float residual;  // 1 or 0
};

// Which 32 channels of the block a warp has.
template <int Warps>
__device__ inline int column_warp() {
  return static_cast<int>(threadIdx.x) / 32 % Warps;
}

__device__ inline int rank_at(int k) { return k % 8 / 2 * 4 + k % 2 + k / 8 * 2; }

// What lies where in shared memory.
template <int Warps>
struct Shared {
  static constexpr int kPitch = Block<Warps>::kPitch;
  std::uint32_t x, z, reach, u, s, dy, sums;

  __device__ explicit Shared(std::uint32_t base)
      : x(base),
        z(x + Block<Warps>::kRowsBytes),
        reach(z + Block<Warps>::kZBytes),
        u(reach + Block<Warps>::kReachBytes),
        s(u + kTaps * kRanks * kPitch),
        dy(base + Block<Warps>::kForwardBytes),
        sums(dy + Block<Warps>::kRowsBytes) {}
  // s of tap w at the channels of a warp's column tile j and lane 4 g + c, as an accumulator.
  __device__ std::uint32_t s_pair(int w, int warp, int j, int c) const {
    return s + ((w * Warps + warp) * 16 + 4 * j + c) * 16;
  }
  __device__ std::uint32_t z_row(int slot) const { return z + (slot + slot / 4) * 2 * kRanks; }
};

// u of the block's channels in the order that the matrix units want, and s as accumulators do: for
// each pair of channels {low, high, low, high} in f32. Zeros where there are no more ranks, taps or
// channels. A thread asks for all of its part before it waits for any.
template <int Threads, int Warps>
__device__ inline void load_filters(const Shared<Warps>& shared, const LowrankCall& call,
                                    int channel0) {
  using Sizes = Block<Warps>;
  constexpr int kPacks = Sizes::kChannels / 8;  // of 8 channels
  constexpr int kOwn = kTaps * kRanks * kPacks / Threads;
  static_assert(kOwn * Threads == kTaps * kRanks * kPacks && kTaps * kPacks <= Threads);
  const auto load = [&](const bf16* row, int channel, bool there) {
    uint4 loaded = {0, 0, 0, 0};
    if (there) loaded = *reinterpret_cast<const uint4*>(row + channel);
    return loaded;
  };
  uint4 held[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int row = (i * Threads + threadIdx.x) / kPacks;
    const int channel = channel0 + threadIdx.x % kPacks * 8;
    const int w = row / kRanks, rank = rank_at(row % kRanks);
    held[i] = load(call.u + (rank * call.width + w) * std::int64_t{call.channels}, channel,
                   channel < call.channels && w < call.width && rank < call.rank);
  }
  const int w = threadIdx.x / kPacks, pack = threadIdx.x % kPacks;
  const bool has_s = w < kTaps;
  const uint4 s = load(call.s + w * std::int64_t{call.channels}, channel0 + pack * 8,
                       w < call.width && channel0 + pack * 8 < call.channels);
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int row = (i * Threads + threadIdx.x) / kPacks;
    const std::uint32_t to = shared.u + row * Sizes::kPitch + pack / 4 * 64 + pack % 4 * 4;
    store_shared4(to, held[i].x);
    store_shared4(to + 16, held[i].y);
    store_shared4(to + 32, held[i].z);
    store_shared4(to + 48, held[i].w);
  }
  if (!has_s) return;
  const std::uint32_t to = shared.s_pair(w, pack / 4, 0, pack % 4);
  const Pair pairs[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float low = low_of(pairs[j]), high = high_of(pairs[j]);
    store_shared16(to + j * 64, low, high, low, high);
  }
}

// Fills the ring, 32 rows at a time from kLead rows before the chunk on; rows and channels outside
// of the tensors become zeros. A thread copies the same 16 bytes of every eighth row or so. Between
// calls it holds next to nothing: addresses are made anew from the kernel's parameters.
template <int Threads, int Warps, bool Backward>
class RowLoader {
 public:
  __device__ RowLoader(const Shared<Warps>& shared, const LowrankCall& call, int channel0,
                       int chunk_first)
      : shared_(shared),
        call_(call),
        channel_(channel0 + pack() * 8),
        first_(chunk_first - kLead) {}

  __device__ void next() {
    const bool inside = channel_ < call_.channels;
    const std::uint32_t to = (slot_ + row()) * Sizes::kPitch + pack() * 16;
#pragma unroll
    for (int i = 0; i < kTokens; i += kStep) {
      const bool there = inside && has(row() + i);
      copy_ahead(shared_.x + to + i * Sizes::kPitch, from(call_.x, row() + i, channel_, there),
                 there);
      if (!Backward) continue;
      copy_ahead(shared_.dy + to + i * Sizes::kPitch, from(call_.dy, row() + i, channel_, there),
                 there);
    }
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < 2 * kTokens) {
      const int row = thread / 2, rank = thread % 2 * 8;
      const bool there = rank < call_.rank && has(row);
      copy_ahead(shared_.z_row(slot_ + row) + rank * 2, from(call_.z, row, rank, there), there);
    } else if (thread < 3 * kTokens) {
      const int row = thread - 2 * kTokens;
      copy_ahead<4>(shared_.reach + (slot_ + row) * 4,
                    has(row) ? call_.reach + first_ + row : call_.reach, has(row));
    }
    first_ += kTokens;
    slot_ = (slot_ + kTokens) % kRing;
    commit_copies();
  }

 private:
  using Sizes = Block<Warps>;
  static constexpr int kPacks = Sizes::kChannels / 8;
  static constexpr int kStep = Threads / kPacks;  // rows that one round of copies covers

  static __device__ int row() { return static_cast<int>(threadIdx.x) / kPacks; }
  static __device__ int pack() { return static_cast<int>(threadIdx.x) % kPacks; }
  __device__ bool has(int row) const {
    return static_cast<unsigned>(first_ + row) < static_cast<unsigned>(call_.rows);
  }
  // An address that may be named, even where nothing is read.
  __device__ const bf16* from(const Rows<const bf16>& rows, int row, int column, bool there) const {
    return there ? rows.row(first_ + row) + column : rows.data;
  }

  const Shared<Warps>& shared_;
  const LowrankCall& call_;
  int channel_, first_, slot_ = 0;
};

// A lane's place in the tile that begins at `slot` of the ring: its 4 tokens, the 4 before, after.
struct LaneRows {
  int before, own, after;  // slots, of the first of 4

  __device__ explicit LaneRows(int slot) {
    const int g = threadIdx.x % 32 / 4;
    own = (slot + 4 * g) % kRing;
    before = (own + kRing - 4) % kRing;
    after = (own + 4) % kRing;
  }
  // Slot of the token i (-4 to 7) of the lane.
  __device__ int at(int i) const {
    return i < 0 ? before + 4 + i : (i < 4 ? own + i : after + i - 4);
  }
};

// Rows of the lane's 8 channels, from `First` on.
template <int Warps, int First, int Count>
__device__ inline void load_lane(Pair (&v)[Count][4], std::uint32_t rows, const LaneRows& lane) {
  const std::uint32_t column = column_warp<Warps>() * 64 + threadIdx.x % 4 * 16;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const uint4 loaded = load_shared16(rows + lane.at(First + i) * Block<Warps>::kPitch + column);
    v[i][0] = loaded.x, v[i][1] = loaded.y, v[i][2] = loaded.z, v[i][3] = loaded.w;
  }
}

// The lower or upper 4 channels of them.
template <int Warps, int First, int Count>
__device__ inline void load_half_lane(Pair (&v)[Count][2], std::uint32_t rows, const LaneRows& lane,
                                      int half) {
  const std::uint32_t column = column_warp<Warps>() * 64 + threadIdx.x % 4 * 16 + half * 8;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const uint2 loaded = load_shared8(rows + lane.at(First + i) * Block<Warps>::kPitch + column);
    v[i][0] = loaded.x, v[i][1] = loaded.y;
  }
}

// Whether no tap of the tile's tokens (and of the 3 after it) meets a document's start.
template <int Warps>
__device__ inline bool all_reach(const Shared<Warps>& shared, int slot, int width) {
  const int lane = threadIdx.x % 32;
  bool whole = load_shared4(shared.reach + (slot + lane) % kRing * 4) >= width - 1;
  if (lane < kTaps - 1) {
    whole = whole && load_shared4(shared.reach + (slot + kTokens + lane) % kRing * 4) >= width - 1;
  }
  return __all_sync(~0u, whole);
}

// The filters of one tile of 8 columns as the matrix units take them: u of each tap as a right
// operand of depth 16, s of each tap as an accumulator whose rows are all s.
struct ColumnFilters {
  Pair u[kTaps][2];
  float s[kTaps][4];

  template <int Warps>
  __device__ void load(const Shared<Warps>& shared, int j) {
    const int lane = threadIdx.x % 32;
    const std::uint32_t column = column_warp<Warps>() * 64 + j * 16;
#pragma unroll
    for (int w = 0; w < kTaps; w += 2) {
      Pair two[4];
      const int row = (w + lane / 16) * kRanks + lane / 8 % 2 * 8 + lane % 8;
      load_matrices_transposed(two, shared.u + row * shared.kPitch + column);
      u[w][0] = two[0], u[w][1] = two[1];
      u[w + 1][0] = two[2], u[w + 1][1] = two[3];
    }
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const uint4 loaded = load_shared16(shared.s_pair(w, column_warp<Warps>(), j, lane % 4));
      s[w][0] = __uint_as_float(loaded.x), s[w][1] = __uint_as_float(loaded.y);
      s[w][2] = __uint_as_float(loaded.z), s[w][3] = __uint_as_float(loaded.w);
    }
  }
};

// z of two neighbouring tokens (first, first + 1) of each lane, as a left operand.
using ZPair = Pair[4];

template <int Warps>
__device__ inline void load_z(ZPair& z, const Shared<Warps>& shared, const LaneRows& lane,
                              int first) {
  // One by one, so that each lands in its place of the operand.
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t ranks = shared.z_row(lane.at(first + i)) + threadIdx.x % 4 * 8;
    z[i] = static_cast<Pair>(load_shared4(ranks));
    z[i + 2] = static_cast<Pair>(load_shared4(ranks + 4));
  }
}

// sum[i][.] of a lane's tokens starts from the residual: in[i + offset], times 1 or 0.
template <int Tokens, int Inputs>
__device__ inline void start_sum(float (&sum)[Tokens][8], const Pair (&in)[Inputs][4], int offset,
                                 float residual) {
#pragma unroll
  for (int i = 0; i < Tokens; ++i) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      sum[i][2 * q] = residual * low_of(in[i + offset][q]);
      sum[i][2 * q + 1] = residual * high_of(in[i + offset][q]);
    }
  }
}

// Stores 8 channels of a row that will not be read again soon.
__device__ inline void store_channels(bf16* to, const float (&sum)[8]) {
  __stcs(reinterpret_cast<uint4*>(to), uint4{pack_pair(sum[0], sum[1]), pack_pair(sum[2], sum[3]),
                                             pack_pair(sum[4], sum[5]), pack_pair(sum[6], sum[7])});
}

// Stores the lane's tokens `First` to First + Count - 1 by 8 channels.
template <int Warps, int First, int Count>
__device__ inline void store_sum(Rows<bf16> to, const float (&sum)[Count][8], int tile_first,
                                 int end, int channel0, int channels) {
  const int lane = threadIdx.x % 32;
  const int channel = channel0 + column_warp<Warps>() * 32 + lane % 4 * 8;
  if (channel >= channels) return;
#pragma unroll
  for (int i = 0; i < Count; ++i) {
    const int t = tile_first + lane / 4 * 4 + First + i;
    if (t >= end) return;
    store_channels(to.row(t) + channel, sum[i]);
  }
}

// Adds filter times input for one tile of columns. f[w][m] are the filters of tap w for tokens 2 m
// and 2 m + 1; the taps of token i read in[i + 3 - w] (Down: in[i + w], whose filters they are).
// Each input is widened once. Masked: tap w of token i counts where bit i of seen[w] is set.
template <bool Masked, bool Down, int Tokens>
__device__ inline void apply_filters(float (&sum)[Tokens][8],
                                     const float (&f)[kTaps][Tokens / 2][4],
                                     const Pair (&in)[Tokens + 3][4], int j,
                                     const unsigned (&seen)[kTaps]) {
#pragma unroll
  for (int row = 0; row < Tokens + 3; ++row) {
    const float low = low_of(in[row][j]), high = high_of(in[row][j]);
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const int i = Down ? row - w : row - 3 + w;
      if (i < 0 || i >= Tokens) continue;
      if (Masked && (seen[w] >> i & 1u) == 0) continue;
      sum[i][2 * j] += f[w][i / 2][i % 2 * 2] * low;
      sum[i][2 * j + 1] += f[w][i / 2][i % 2 * 2 + 1] * high;
    }
  }
}

// Bit i < count: whether token first + i of the lane reaches w rows back.
template <int Warps>
__device__ inline unsigned reaching(const Shared<Warps>& shared, const LaneRows& lane, int first,
                                    int w, int count) {
  unsigned seen = 0;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    if (load_shared4(shared.reach + lane.at(first + i) * 4) >= w) seen |= 1u << i;
  }
  return seen;
}

template <bool Masked, int Warps>
__device__ inline void forward_tile(float (&sum)[4][8], const ColumnFilters (&filters)[4],
                                    const Shared<Warps>& shared, const LaneRows& lane,
                                    float residual) {
  Pair x[7][4];
  ZPair z[2];
  unsigned seen[kTaps];
  load_lane<Warps, -3>(x, shared.x, lane);
  for (int m = 0; m < 2; ++m) load_z(z[m], shared, lane, 2 * m);
#pragma unroll
  for (int w = 0; w < kTaps; ++w) seen[w] = Masked ? reaching(shared, lane, 0, w, 4) : 0;
  start_sum(sum, x, 3, residual);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    float f[kTaps][2][4];
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        multiply_add_to(f[w][m], z[m], filters[j].u[w][0], filters[j].u[w][1], filters[j].s[w]);
      }
    }
    apply_filters<Masked, false>(sum, f, x, j, seen);
  }
}

__global__ void __launch_bounds__(Block<kForwardWarps>::kThreads, 2)
    forward_kernel(Rows<bf16> y, const __grid_constant__ LowrankCall call) {
  extern __shared__ __align__(16) char memory[];
  const Shared<kForwardWarps> shared(shared_address(memory));
  const int channel0 = blockIdx.x * Block<kForwardWarps>::kChannels;
  const int first = static_cast<int>(blockIdx.y) * call.chunk_rows;
  const int end = min(first + call.chunk_rows, call.rows);
  constexpr int kThreads = Block<kForwardWarps>::kThreads;
  wait_for_previous();
  allow_next();
  RowLoader<kThreads, kForwardWarps, false> loader(shared, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_filters<kThreads>(shared, call, channel0);
  __syncthreads();
  ColumnFilters filters[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) filters[j].load(shared, j);
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    loader.next();
    const int slot = (kLead + tile * kTokens) % kRing;
    const LaneRows lane(slot);
    float sum[4][8];
    if (all_reach(shared, slot, call.width)) {
      forward_tile<false>(sum, filters, shared, lane, call.residual);
    } else {
      forward_tile<true>(sum, filters, shared, lane, call.residual);
    }
    store_sum<kForwardWarps, 0>(y, sum, first + tile * kTokens, end, channel0, call.channels);
  }
  wait_copies<0>();
}

// dx[t] = sum over taps of K[t + w, w] dy[t + w], for tokens 2 `M` and 2 M + 1 of each lane.
template <bool Masked, int M, int Warps>
__device__ inline void input_tokens(float (&sum)[2][8], const Shared<Warps>& shared,
                                    const LaneRows& lane, float residual) {
  Pair dy[5][4];
  ZPair z[kTaps];  // from token 2 M + w on
  unsigned seen[kTaps];
  load_lane<Warps, 2 * M>(dy, shared.dy, lane);
#pragma unroll
  for (int w = 0; w < kTaps; ++w) {
    load_z(z[w], shared, lane, 2 * M + w);
    seen[w] = Masked ? reaching(shared, lane, 2 * M + w, w, 2) : 0;
  }
  start_sum(sum, dy, 0, residual);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    ColumnFilters filters;
    filters.load(shared, j);
    float f[kTaps][1][4];
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      multiply_add_to(f[w][0], z[w], filters.u[w][0], filters.u[w][1], filters.s[w]);
    }
    apply_filters<Masked, true>(sum, f, dy, j, seen);
  }
}

// The warps of one half of the block wait for each other alone; 0 is everybody's barrier.
template <int Threads>
__device__ inline void wait_for_half() {
  asm volatile("bar.sync 1, %0;" ::"n"(Threads) : "memory");
}

// Puts a warp's dz of tokens 2 M and 2 M + 1 of each lane where the block adds them up.
template <int M, int Warps>
__device__ inline void store_dz(std::uint32_t sums, const float (&dz)[2][4]) {
  const int lane = threadIdx.x % 32;
  const std::uint32_t to = sums + column_warp<Warps>() * kTokens / 4 * kSumPitch +
                           lane / 4 * kSumPitch + 2 * M * 4 * kRanks + lane % 4 * 16;
  store_shared16(to, dz[0][0], dz[0][1], dz[1][0], dz[1][1]);
  store_shared16(to + 4 * kRanks, dz[0][2], dz[0][3], dz[1][2], dz[1][3]);
}

// Adds dz of the block's warps in order: partial [channel block, rows, kRanks].
template <int Warps>
__device__ inline void reduce_dz(float* partial, std::uint32_t sums, int tile_first, int end) {
  wait_for_half<32 * Warps>();
  static_assert(Warps == 8, "a thread adds two ranks of a token");
  const int thread = static_cast<int>(threadIdx.x) % (32 * Warps);
  const int token = thread / 8, pair = thread % 8;
  float low = 0, high = 0;
  const std::uint32_t from = sums + token / 4 * kSumPitch + token % 4 * 4 * kRanks + pair * 8;
#pragma unroll
  for (int i = 0; i < Warps; ++i) {
    const uint2 v = load_shared8(from + i * kTokens / 4 * kSumPitch);
    low += __uint_as_float(v.x);
    high += __uint_as_float(v.y);
  }
  const std::int64_t t = tile_first + token;
  if (t < end) *reinterpret_cast<float2*>(partial + t * kRanks + 2 * pair) = {low, high};
}

// du and ds of all tiles of a warp.
struct WeightSums {
  float u[kTaps][4][4];  // [tap][column tile][rank rows g, g + 8 by columns 2c, 2c + 1]
  float s[4];            // row 4 q + w is tap w of column tile q
};

// From the products p = dy x of tokens 2 `M` and 2 M + 1 of each lane: their dz over the warp's
// channels, put into shared memory, and what they add to du and ds. Two column tiles at a time and
// no more, so that few registers hold rows.
template <bool Masked, bool Input, bool Weight, int M, int Warps>
__device__ inline void product_tokens(WeightSums& sums, const Shared<Warps>& shared,
                                      const LaneRows& lane) {
  const int in_warp = threadIdx.x % 32;
  float dz[2][4] = {};  // [half of the ranks][accumulator]
  Pair left[4];
  if (Weight) {  // the two tokens of each lane are one depth of 16
    ZPair z;
    load_z(z, shared, lane, 2 * M);
    left[0] = transpose_matrix(z[0]);
    left[1] = transpose_matrix(z[2]);
    left[2] = transpose_matrix(z[1]);
    left[3] = transpose_matrix(z[3]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Pair x[5][2], dy[2][2];
    load_half_lane<Warps, 2 * M - 3>(x, shared.x, lane, half);
    load_half_lane<Warps, 2 * M>(dy, shared.dy, lane, half);
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const unsigned seen = Masked ? reaching(shared, lane, 2 * M, w, 2) : 0;
      Pair p[2][2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int q = 0; q < 2; ++q) {
          p[i][q] = multiply_pairs(dy[i][q], x[i + 3 - w][q]);
          if (Masked && (seen >> i & 1u) == 0) p[i][q] = 0;
        }
      }
      if (Input) {
        Pair u[4];
        load_matrices(u, shared.u + (w * kRanks + in_warp / 16 * 8 + in_warp % 8) * shared.kPitch +
                             column_warp<Warps>() * 64 + (2 * half + in_warp / 8 % 2) * 16);
        const Pair a[4] = {p[0][0], p[1][0], p[0][1], p[1][1]};
        multiply_add(dz[0], a, u[0], u[1]);
        multiply_add(dz[1], a, u[2], u[3]);
      }
      if (!Weight) continue;
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const Pair ones = in_warp / 4 == 4 * q + w ? 0x3f803f80u : 0u;
        const Pair row[4] = {half == 0 ? ones : 0u, half == 1 ? ones : 0u, half == 0 ? ones : 0u,
                             half == 1 ? ones : 0u};
        const Pair b0 = transpose_matrix(p[0][q]), b1 = transpose_matrix(p[1][q]);
        multiply_add(sums.u[w][2 * half + q], left, b0, b1);
        multiply_add(sums.s, row, b0, b1);
      }
    }
  }
  if (Input) store_dz<M, Warps>(shared.sums, dz);
}

// partial [1 + rank, width, channels] of one chunk: ds, then du.
template <int Warps>
__device__ inline void store_weights(float* partial, const WeightSums& sums,
                                     const LowrankCall& call, int channel0) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
  const int channel = channel0 + column_warp<Warps>() * 32 + 8 * c;
  if (channel >= call.channels) return;
  const std::int64_t stride = std::int64_t{call.width} * call.channels;
  float* place = partial + channel;
  if (g % 4 < call.width) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<float2*>(place + g % 4 * std::int64_t{call.channels} + 4 * half +
                                 2 * (g / 4)) = {sums.s[2 * half], sums.s[2 * half + 1]};
    }
  }
#pragma unroll
  for (int w = 0; w < kTaps; ++w) {
    if (w >= call.width) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int rank = rank_at(g + 8 * half);
      if (rank >= call.rank) continue;
      float* row = place + (1 + rank) * stride + w * std::int64_t{call.channels};
#pragma unroll
      for (int q = 0; q < 4; q += 2) {
        *reinterpret_cast<float4*>(row + 2 * q) = {
            sums.u[w][q][2 * half], sums.u[w][q][2 * half + 1], sums.u[w][q + 1][2 * half],
            sums.u[w][q + 1][2 * half + 1]};
      }
    }
  }
}

// A tile of the rows of a chunk, arrived.
struct Tile {
  LaneRows lane;
  int first;
  bool whole;  // no tap meets a document's start
};

// What takes filters: dx of a tile.
template <bool Masked, int Warps>
__device__ inline void filter_part(Rows<bf16> dx, const Shared<Warps>& shared,
                                   const LowrankCall& call, const Tile& tile, int end,
                                   int channel0) {
  float sum[2][8];
  input_tokens<Masked, 0>(sum, shared, tile.lane, call.residual);
  store_sum<Warps, 0>(dx, sum, tile.first, end, channel0, call.channels);
  input_tokens<Masked, 1>(sum, shared, tile.lane, call.residual);
  store_sum<Warps, 2>(dx, sum, tile.first, end, channel0, call.channels);
}

// What takes products: dz of a tile and the block's channels, and the sums of du and ds.
template <bool Masked, bool Input, bool Weight, int Warps>
__device__ inline void product_part(float* dz_partial, WeightSums& sums,
                                    const Shared<Warps>& shared, const Tile& tile, int end) {
  product_tokens<Masked, Input, Weight, 0>(sums, shared, tile.lane);
  product_tokens<Masked, Input, Weight, 1>(sums, shared, tile.lane);
  if (Input) reduce_dz<Warps>(dz_partial, shared.sums, tile.first, end);
}

// One half of the threads for what takes filters, which the weights' gradients do without, and one
// for what takes products.
template <bool Input>
constexpr int kBackwardThreads = (Input ? 2 : 1) * Block<kBackwardWarps>::kThreads;

template <bool Input, bool Weight>
__global__ void __launch_bounds__(kBackwardThreads<Input>, 1)
    backward_kernel(Rows<bf16> dx, float* dz_partial, float* weight_partial,
                    const __grid_constant__ LowrankCall call) {
  constexpr int kWarps = kBackwardWarps, kThreads = kBackwardThreads<Input>;
  extern __shared__ __align__(16) char memory[];
  const Shared<kWarps> shared(shared_address(memory));
  const int channel0 = blockIdx.x * Block<kWarps>::kChannels;
  const int first = static_cast<int>(blockIdx.y) * call.chunk_rows;
  const int end = min(first + call.chunk_rows, call.rows);
  wait_for_previous();
  allow_next();
  RowLoader<kThreads, kWarps, true> loader(shared, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_filters<kThreads>(shared, call, channel0);
  const auto each_tile = [&](auto&& part) {
    for (int tile = 0; first + tile * kTokens < end; ++tile) {
      wait_copies<1>();
      __syncthreads();
      loader.next();
      const int slot = (kLead + tile * kTokens) % kRing;
      part(Tile{LaneRows(slot), first + tile * kTokens, all_reach(shared, slot, call.width)});
    }
  };
  if (Input && threadIdx.x < Block<kWarps>::kThreads) {
    each_tile([&](const Tile& tile) {
      if (tile.whole) {
        filter_part<false>(dx, shared, call, tile, end, channel0);
      } else {
        filter_part<true>(dx, shared, call, tile, end, channel0);
      }
    });
  } else {
    WeightSums sums = {};
    float* dz = Input ? dz_partial + blockIdx.x * std::int64_t{call.rows} * kRanks : nullptr;
    each_tile([&](const Tile& tile) {
      if (tile.whole) {
        product_part<false, Input, Weight>(dz, sums, shared, tile, end);
      } else {
        product_part<true, Input, Weight>(dz, sums, shared, tile, end);
      }
    });
    if (Weight) {
      store_weights<kWarps>(
          weight_partial + blockIdx.y * std::int64_t{1 + call.rank} * call.width * call.channels,
          sums, call, channel0);
    }
  }
  wait_copies<0>();
}

// dz [rows, rank] = sum over channel blocks, in order; four ranks a thread.
struct RankSums {
  Rows<bf16> dz;
  const float* partial;  // [channel_blocks, rows, kRanks]
  std::int64_t rows;
  int rank, channel_blocks;

  static constexpr int kBlockSums = 4 * kSumLanes * kSumSlices;
  unsigned blocks() const {
    return static_cast<unsigned>(ceil_div<std::int64_t>(rows * kRanks, kBlockSums));
  }
};

__device__ inline void add_ranks(const RankSums& to) {
  const int thread = static_cast<int>(threadIdx.y * kSumLanes + threadIdx.x);
  const std::int64_t index = std::int64_t{blockIdx.x} * RankSums::kBlockSums + 4 * thread;
  const std::int64_t t = index / kRanks;
  const int r = static_cast<int>(index % kRanks);
  if (t >= to.rows || r >= to.rank) return;
  float4 sum = {0, 0, 0, 0};
#pragma unroll 8
  for (int block = 0; block < to.channel_blocks; ++block) {
    const auto more =
        *reinterpret_cast<const float4*>(to.partial + block * to.rows * kRanks + index);
    sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
  }
  *reinterpret_cast<uint2*>(to.dz.row(t) + r) = {pack_pair(sum.x, sum.y), pack_pair(sum.z, sum.w)};
}

// What is left after the backward pass: the first blocks add dz, the others ds and du.
__global__ void add_partials_kernel(RankSums ranks, unsigned rank_blocks,
                                    ConvWeightSums<float> weights) {
  wait_for_previous();
  if (blockIdx.x < rank_blocks) {
    add_ranks(ranks);
  } else {
    add_chunks<4>(weights, blockIdx.x - rank_blocks);
  }
}

bool takes(const ConvCall& call, std::initializer_list<Tensor> tensors) {
  const auto& shape = call.shape;
  if (tensors.begin()->dtype() != DType::bf16 || !packable(16, tensors)) return false;
  if (tensors.begin()->rows() > INT32_MAX / 2) return false;
  return shape.width <= kTaps && shape.filter_rank <= kRanks && shape.filter_rank % 8 == 0 &&
         call.rows.halo.empty() && call.filters.s.contiguous() && call.filters.u.contiguous() &&
         packable(16, {call.filters.s, call.filters.u});
}

// How rows are cut for `blocks` blocks in all: by the shape alone, so that bits are too.
template <int Warps>
LowrankCall describe(const ConvCall& call, const Tensor& x, const Tensor& dy, int blocks) {
  const std::int64_t wide = ceil_div<std::int64_t>(x.cols(), Block<Warps>::kChannels);
  const std::int64_t chunks = std::max<std::int64_t>(1, blocks / wide);
  const std::int64_t chunk_rows =
      ceil_div<std::int64_t>(ceil_div<std::int64_t>(x.rows(), chunks), kTokens) * kTokens;
  return {read_rows<bf16>(x),
          read_rows<bf16>(dy),
          read_rows<bf16>(call.filters.generated),
          data_of<bf16>(call.filters.s),
          data_of<bf16>(call.filters.u),
          call.rows.reach.data<std::int32_t>(),
          static_cast<int>(x.rows()),
          static_cast<int>(chunk_rows),
          static_cast<int>(x.cols()),
          static_cast<int>(call.shape.filter_rank),
          call.shape.width,
          call.shape.residual ? 1.0f : 0.0f};
}

template <int Warps>
dim3 grid_of(const LowrankCall& call) {
  return {static_cast<unsigned>(ceil_div(call.channels, Block<Warps>::kChannels)),
          static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows))};
}

}  // namespace

bool lowrank_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  if (!takes(call, {x, y, call.filters.generated})) return false;
  using Sizes = Block<kForwardWarps>;
  const LowrankCall c = describe<kForwardWarps>(call, x, {}, 264);
  launch_overlapped(forward_kernel, grid_of<kForwardWarps>(c), Sizes::kThreads,
                    Sizes::kForwardBytes, call.stream, rows_of<bf16>(y), c);
  return true;
}

bool lowrank_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                           ConvWants wants) {
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  if (!takes(call, {x, dy, call.filters.generated})) return false;
  if (input && !packable(16, {g.dx, g.dgenerated})) return false;
  using Sizes = Block<kBackwardWarps>;
  const LowrankCall c = describe<kBackwardWarps>(call, x, dy, 132);
  const dim3 grid = grid_of<kBackwardWarps>(c);
  const std::int64_t dz_count = input ? std::int64_t{grid.x} * c.rows * kRanks : 0;
  const std::int64_t static_count = std::int64_t{c.width} * c.channels;
  const std::int64_t weight_count = (1 + c.rank) * static_count;
  const std::int64_t weight_total = weight ? grid.y * weight_count : 0;
  call.workspace.begin(static_cast<std::size_t>(dz_count + weight_total) * sizeof(float) + 512);
  auto* dz = call.workspace.take<float>(dz_count);
  auto* weights = call.workspace.take<float>(weight_total);
  const auto kernel = input && weight ? backward_kernel<true, true>
                      : input         ? backward_kernel<true, false>
                                      : backward_kernel<false, true>;
  constexpr int kBytes = Sizes::kForwardBytes + Sizes::kRowsBytes + Sizes::kSumBytes;
  launch_overlapped(kernel, grid, Sizes::kThreads * (input ? 2 : 1), kBytes, call.stream,
                    rows_of<bf16>(g.dx), dz, weights, c);
  const RankSums ranks{rows_of<bf16>(g.dgenerated), dz, c.rows, c.rank, static_cast<int>(grid.x)};
  const ConvWeightSums<float> sums{weight ? data_of<float>(g.ds) : nullptr,
                                   weight ? data_of<float>(g.du) : nullptr,
                                   weights,
                                   static_count,
                                   weight ? weight_count : 0,
                                   grid.y};
  const unsigned rank_blocks = input ? ranks.blocks() : 0;
  launch_overlapped(add_partials_kernel, rank_blocks + sums.blocks<4>(),
                    dim3(kSumLanes, kSumSlices), 0, call.stream, ranks, rank_blocks, sums);
  return true;
}

}  // namespace convoy::cuda
