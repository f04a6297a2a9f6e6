// Low-rank filters K[t, w, d] = s[w, d] + sum_r z[t, r] u[r, w, d] in bf16 on the matrix units, for
// up to 16 ranks and 4 taps; shorter filters are padded with zeros. A warp walks down the rows in
// tiles of 32 tokens by 32 channels, in such an order of rows and columns that a lane owns 4
// consecutive tokens and 8 consecutive channels of every filter, input and output:
//
//   accumulator (tile m, half h) of lane 4 g + c: token 4 g + 2 m + h
//
//   column 2 c + e of the tile j of 8 columns: channel 8 c + 2 j + e, stored at 8 j + 2 c + e
//
//   depth k of the ranks: rank 4 (k / 2) + k % 2 below 8, 2 more from 8 on
//
// Filters are never stored. The backward pass reads x and dy once: dx from filters made again, and
// from the products p = dy x (rounded to bf16) dz = p u, du = z^T p and ds = 1^T p. Rows arrive in
// a ring in shared memory while the tile before is computed. Sums over channel blocks (dz) and over
// chunks of rows (du, ds) go through device memory and are added in order.
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

// A block of `Warps` warps, 32 channels each, and its shared memory in bytes. Four rows of z are
// followed by a gap that sets the next four off.
template <int Warps>
struct Block {
  static constexpr int kThreads = 32 * Warps;
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
  std::int64_t rows, chunk_rows;
  int channels, rank, width;
  float residual;  // 1 or 0
};

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
template <int Warps>
__device__ inline void load_filters(const Shared<Warps>& shared, const LowrankCall& call,
                                    int channel0) {
  using Sizes = Block<Warps>;
  constexpr int kPacks = Sizes::kChannels / 8;  // of 8 channels
  constexpr int kOwn = kTaps * kRanks * kPacks / Sizes::kThreads;
  static_assert(kOwn * Sizes::kThreads == kTaps * kRanks * kPacks && kTaps * kPacks <= 128);
  const auto load = [&](const bf16* row, int channel, bool there) {
    uint4 loaded = {0, 0, 0, 0};
    if (there) loaded = *reinterpret_cast<const uint4*>(row + channel);
    return loaded;
  };
  uint4 held[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int row = (i * Sizes::kThreads + threadIdx.x) / kPacks;
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
    const int row = (i * Sizes::kThreads + threadIdx.x) / kPacks;
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
// of the tensors become zeros. A thread copies the same 16 bytes of every eighth row or so.
template <int Warps, bool Backward>
class RowLoader {
 public:
  __device__ RowLoader(const Shared<Warps>& shared, const LowrankCall& call, int channel0,
                       std::int64_t chunk_first)
      : shared_(shared),
        first_(static_cast<int>(chunk_first) - kLead),
        rows_(static_cast<int>(call.rows)),
        inside_(channel0 + pack() * 8 < call.channels),
        to_(row() * Sizes::kPitch + pack() * 16) {
    const std::int64_t t = first_ + row();
    const int column = inside_ ? channel0 + pack() * 8 : 0;
    x_ = call.x.data + t * call.x.stride + column;
    x_step_ = kStep * call.x.stride;
    if (Backward) dy_ = call.dy.data + t * call.dy.stride + column;
    if (Backward) dy_step_ = kStep * call.dy.stride;
    const int z_row = threadIdx.x / 2;
    z_inside_ = threadIdx.x % 2 * 8 < call.rank;
    z_ = call.z.data + (first_ + z_row) * call.z.stride + threadIdx.x % 2 * 8;
    z_stride_ = call.z.stride;
    reach_ = call.reach + first_ + threadIdx.x % kTokens;
    base_ = call.x.data;
  }

  __device__ void next() {
    const std::uint32_t ring = slot_ * Sizes::kPitch + to_;
#pragma unroll
    for (int i = 0; i < kTokens / kStep; ++i) {
      const bool there = inside_ && has(row() + i * kStep);
      copy_ahead(shared_.x + ring + i * kStep * Sizes::kPitch,
                 there ? static_cast<const void*>(x_) : fallback(), there);
      x_ += x_step_;
      if (!Backward) continue;
      copy_ahead(shared_.dy + ring + i * kStep * Sizes::kPitch,
                 there ? static_cast<const void*>(dy_) : fallback(), there);
      dy_ += dy_step_;
    }
    if (threadIdx.x < 2 * kTokens) {
      const bool there = z_inside_ && has(threadIdx.x / 2);
      copy_ahead(shared_.z_row(slot_ + threadIdx.x / 2) + threadIdx.x % 2 * 16,
                 there ? static_cast<const void*>(z_) : fallback(), there);
    } else if (threadIdx.x < 3 * kTokens) {
      const int row = threadIdx.x - 2 * kTokens;
      const bool there = has(row);
      copy_ahead<4>(shared_.reach + (slot_ + row) * 4,
                    there ? static_cast<const void*>(reach_) : fallback(), there);
    }
    z_ += kTokens * z_stride_;
    reach_ += kTokens;
    first_ += kTokens;
    slot_ = (slot_ + kTokens) % kRing;
    commit_copies();
  }

 private:
  using Sizes = Block<Warps>;
  static constexpr int kPacks = Sizes::kChannels / 8;
  static constexpr int kStep = Sizes::kThreads / kPacks;  // rows that one round of copies covers

  static __device__ int row() { return threadIdx.x / kPacks; }
  static __device__ int pack() { return threadIdx.x % kPacks; }
  __device__ bool has(int row) const {
    return static_cast<unsigned>(first_ + row) < static_cast<unsigned>(rows_);
  }
  // An address that may be named where nothing is read.
  __device__ const void* fallback() const { return base_; }

  const Shared<Warps>& shared_;
  int first_, rows_, slot_ = 0;
  bool inside_, z_inside_;
  std::uint32_t to_;
  const bf16 *x_, *dy_ = nullptr, *z_;
  std::int64_t x_step_, dy_step_ = 0, z_stride_;
  const std::int32_t* reach_;
  const bf16* base_ = nullptr;
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

// Rows -3 to 3 (or 0 to 6, from `First` on) of the lane's 8 channels.
template <int Warps, int First>
__device__ inline void load_lane(Pair (&v)[7][4], std::uint32_t rows, const LaneRows& lane) {
  const std::uint32_t column = threadIdx.x / 32 * 64 + threadIdx.x % 4 * 16;
#pragma unroll
  for (int i = 0; i < 7; ++i) {
    const uint4 loaded = load_shared16(rows + lane.at(First + i) * Block<Warps>::kPitch + column);
    v[i][0] = loaded.x, v[i][1] = loaded.y, v[i][2] = loaded.z, v[i][3] = loaded.w;
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
    const std::uint32_t column = threadIdx.x / 32 * 64 + j * 16;
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
      const uint4 loaded = load_shared16(shared.s_pair(w, threadIdx.x / 32, j, lane % 4));
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

// sum[i][.] of the lane's 4 tokens starts from the residual: in[i + offset], times 1 or 0.
__device__ inline void start_sum(float (&sum)[4][8], const Pair (&in)[7][4], int offset,
                                 float residual) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      sum[i][2 * q] = residual * low_of(in[i + offset][q]);
      sum[i][2 * q + 1] = residual * high_of(in[i + offset][q]);
    }
  }
}

// Stores the lane's 4 tokens by 8 channels.
__device__ inline void store_sum(Rows<bf16> to, const float (&sum)[4][8], std::int64_t tile_first,
                                 std::int64_t end, int channel0, int channels) {
  const int lane = threadIdx.x % 32;
  const int channel = channel0 + threadIdx.x / 32 * 32 + lane % 4 * 8;
  if (channel >= channels) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t t = tile_first + lane / 4 * 4 + i;
    if (t >= end) return;
    const uint4 packed = {pack_pair(sum[i][0], sum[i][1]), pack_pair(sum[i][2], sum[i][3]),
                          pack_pair(sum[i][4], sum[i][5]), pack_pair(sum[i][6], sum[i][7])};
    __stcs(reinterpret_cast<uint4*>(to.row(t) + channel), packed);
  }
}

// Adds filter times input for one tile of columns. f[w][m] are the filters of tap w; the taps of
// token i read in[i + 3 - w] (Down: in[i + w], whose filters they are). Each input is widened once.
// Masked: tap w of token i counts where bit i of seen[w] is set.
template <bool Masked, bool Down>
__device__ inline void apply_filters(float (&sum)[4][8], const float (&f)[kTaps][2][4],
                                     const Pair (&in)[7][4], int j, const unsigned (&seen)[kTaps]) {
#pragma unroll
  for (int row = 0; row < 7; ++row) {
    const float low = low_of(in[row][j]), high = high_of(in[row][j]);
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const int i = Down ? row - w : row - 3 + w;
      if (i < 0 || i > 3) continue;
      if (Masked && (seen[w] >> i & 1u) == 0) continue;
      sum[i][2 * j] += f[w][i / 2][i % 2 * 2] * low;
      sum[i][2 * j + 1] += f[w][i / 2][i % 2 * 2 + 1] * high;
    }
  }
}

// Bit i: whether token first + i of the lane reaches w rows back.
template <int Warps>
__device__ inline unsigned reaching(const Shared<Warps>& shared, const LaneRows& lane, int first,
                                    int w) {
  unsigned seen = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
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
  for (int w = 0; w < kTaps; ++w) seen[w] = Masked ? reaching(shared, lane, 0, w) : 0;
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
    forward_kernel(Rows<bf16> y, LowrankCall call) {
  extern __shared__ __align__(16) char memory[];
  wait_for_previous();
  allow_next();
  const Shared<kForwardWarps> shared(shared_address(memory));
  const int channel0 = blockIdx.x * Block<kForwardWarps>::kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  RowLoader<kForwardWarps, false> loader(shared, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_filters(shared, call, channel0);
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
    store_sum(y, sum, first + tile * kTokens, end, channel0, call.channels);
  }
  wait_copies<0>();
}

// dx[t] = sum over taps of K[t + w, w] dy[t + w].
template <bool Masked, int Warps>
__device__ inline void input_tile(float (&sum)[4][8], const Shared<Warps>& shared,
                                  const LaneRows& lane, float residual) {
  Pair dy[7][4];
  ZPair z[6];  // from token t on, for t = w + 2 m
  unsigned seen[kTaps];
  load_lane<Warps, 0>(dy, shared.dy, lane);
#pragma unroll
  for (int t = 0; t < 6; ++t) load_z(z[t], shared, lane, t);
#pragma unroll
  for (int w = 0; w < kTaps; ++w) seen[w] = Masked ? reaching(shared, lane, w, w) : 0;
  start_sum(sum, dy, 0, residual);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    ColumnFilters filters;
    filters.load(shared, j);
    float f[kTaps][2][4];
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        multiply_add_to(f[w][m], z[w + 2 * m], filters.u[w][0], filters.u[w][1], filters.s[w]);
      }
    }
    apply_filters<Masked, true>(sum, f, dy, j, seen);
  }
}

// The sums of a warp's products: dz of this tile, du and ds of all its tiles.
struct WeightSums {
  float u[kTaps][4][4];  // [tap][column tile][rank rows g, g + 8 by columns 2c, 2c + 1]
  float s[4][4];         // row g is tap g
};

template <bool Masked, bool Input, bool Weight, int Warps>
__device__ inline void product_tile(float (&dz)[2][2][4], WeightSums& sums,
                                    const Shared<Warps>& shared, const LaneRows& lane) {
  const int in_warp = threadIdx.x % 32;
  Pair x[7][4], dy[4][4], left[2][4];
  load_lane<Warps, -3>(x, shared.x, lane);
  const std::uint32_t column = threadIdx.x / 32 * 64 + threadIdx.x % 4 * 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint4 loaded = load_shared16(shared.dy + lane.at(i) * shared.kPitch + column);
    dy[i][0] = loaded.x, dy[i][1] = loaded.y, dy[i][2] = loaded.z, dy[i][3] = loaded.w;
  }
  if (Weight) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {  // tokens 2m and 2m + 1 of each lane are one depth of 16
      ZPair z;
      load_z(z, shared, lane, 2 * m);
      left[m][0] = transpose_matrix(z[0]);
      left[m][1] = transpose_matrix(z[2]);
      left[m][2] = transpose_matrix(z[1]);
      left[m][3] = transpose_matrix(z[3]);
    }
  }
#pragma unroll
  for (int w = 0; w < kTaps; ++w) {
    Pair p[4][4];
    const unsigned seen = Masked ? reaching(shared, lane, 0, w) : 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int q = 0; q < 4; ++q) {
        p[i][q] = multiply_pairs(dy[i][q], x[i + 3 - w][q]);
        if (Masked && (seen >> i & 1u) == 0) p[i][q] = 0;
      }
    }
    if (Input) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        Pair u[4];
        load_matrices(u, shared.u + (w * kRanks + in_warp / 16 * 8 + in_warp % 8) * shared.kPitch +
                             threadIdx.x / 32 * 64 + (2 * k + in_warp / 8 % 2) * 16);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const Pair a[4] = {p[2 * m][2 * k], p[2 * m + 1][2 * k], p[2 * m][2 * k + 1],
                             p[2 * m + 1][2 * k + 1]};
          multiply_add(dz[m][0], a, u[0], u[1]);
          multiply_add(dz[m][1], a, u[2], u[3]);
        }
      }
    }
    if (Weight) {
      const Pair ones = in_warp / 4 == w ? 0x3f803f80u : 0u;
      const Pair row[4] = {ones, 0u, ones, 0u};
#pragma unroll
      for (int q = 0; q < 4; ++q) {
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          const Pair b0 = transpose_matrix(p[2 * m][q]), b1 = transpose_matrix(p[2 * m + 1][q]);
          multiply_add(sums.u[w][q], left[m], b0, b1);
          multiply_add(sums.s[q], row, b0, b1);
        }
      }
    }
  }
}

// Adds dz of the block's warps in order: partial [channel block, rows, kRanks].
template <int Warps>
__device__ inline void reduce_dz(float* partial, const float (&dz)[2][2][4], std::uint32_t sums,
                                 std::int64_t tile_first, std::int64_t end) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
  constexpr int kWarpBytes = kTokens / 4 * kSumPitch;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const std::uint32_t to =
          sums + warp * kWarpBytes + g * kSumPitch + (2 * m + h) * 4 * kRanks + c * 16;
      asm volatile("st.shared.v4.f32 [%0], {%1,%2,%3,%4};" ::"r"(to), "f"(dz[m][0][2 * h]),
                   "f"(dz[m][0][2 * h + 1]), "f"(dz[m][1][2 * h]), "f"(dz[m][1][2 * h + 1])
                   : "memory");
    }
  }
  __syncthreads();
  static_assert(Warps == 8, "a thread adds two ranks of a token");
  const int token = threadIdx.x / 8, pair = threadIdx.x % 8;
  float low = 0, high = 0;
  const std::uint32_t from = sums + token / 4 * kSumPitch + token % 4 * 4 * kRanks + pair * 8;
#pragma unroll
  for (int i = 0; i < Warps; ++i) {
    const uint2 v = load_shared8(from + i * kWarpBytes);
    low += __uint_as_float(v.x);
    high += __uint_as_float(v.y);
  }
  const std::int64_t t = tile_first + token;
  if (t < end) *reinterpret_cast<float2*>(partial + t * kRanks + 2 * pair) = {low, high};
}

// partial [1 + rank, width, channels] of one chunk: ds, then du.
__device__ inline void store_weights(float* partial, const WeightSums& sums,
                                     const LowrankCall& call, int channel0) {
  const int g = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
  const int channel = channel0 + threadIdx.x / 32 * 32 + 8 * c;
  if (channel >= call.channels) return;
  const std::int64_t stride = std::int64_t{call.width} * call.channels;
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    float* place = partial + channel + 2 * q;
    if (g < call.width) {
      *reinterpret_cast<float2*>(place + g * std::int64_t{call.channels}) = {sums.s[q][0],
                                                                             sums.s[q][1]};
    }
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      if (w >= call.width) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int rank = rank_at(g + 8 * half);
        if (rank >= call.rank) continue;
        *reinterpret_cast<float2*>(place + (1 + rank) * stride +
                                   w * std::int64_t{call.channels}) = {sums.u[w][q][2 * half],
                                                                       sums.u[w][q][2 * half + 1]};
      }
    }
  }
}

template <bool Input, bool Weight>
__global__ void __launch_bounds__(Block<kBackwardWarps>::kThreads, 1)
    backward_kernel(Rows<bf16> dx, float* dz_partial, float* weight_partial, LowrankCall call) {
  extern __shared__ __align__(16) char memory[];
  wait_for_previous();
  allow_next();
  const Shared<kBackwardWarps> shared(shared_address(memory));
  const int channel0 = blockIdx.x * Block<kBackwardWarps>::kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  RowLoader<kBackwardWarps, true> loader(shared, call, channel0, first);
  for (int block = 0; block < 3; ++block) loader.next();
  load_filters(shared, call, channel0);
  WeightSums sums = {};
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    loader.next();
    const int slot = (kLead + tile * kTokens) % kRing;
    const LaneRows lane(slot);
    const bool whole = all_reach(shared, slot, call.width);
    const std::int64_t tile_first = first + tile * kTokens;
    if (Input) {
      float sum[4][8];
      if (whole) {
        input_tile<false>(sum, shared, lane, call.residual);
      } else {
        input_tile<true>(sum, shared, lane, call.residual);
      }
      store_sum(dx, sum, tile_first, end, channel0, call.channels);
    }
    float dz[2][2][4] = {};
    if (whole) {
      product_tile<false, Input, Weight>(dz, sums, shared, lane);
    } else {
      product_tile<true, Input, Weight>(dz, sums, shared, lane);
    }
    if (Input) {
      reduce_dz<kBackwardWarps>(dz_partial + blockIdx.x * call.rows * kRanks, dz, shared.sums,
                                tile_first, end);
    }
  }
  wait_copies<0>();
  if (Weight) {
    store_weights(
        weight_partial + blockIdx.y * std::int64_t{1 + call.rank} * call.width * call.channels,
        sums, call, channel0);
  }
}

// dz [rows, rank] = sum over channel blocks, in order.
__global__ void add_dz_kernel(Rows<bf16> dz, const float* partial, std::int64_t rows, int rank,
                              int blocks) {
  wait_for_previous();
  const std::int64_t index = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  const std::int64_t t = index / kRanks;
  const int r = static_cast<int>(index % kRanks);
  if (t >= rows || r >= rank) return;
  float sum = 0;
  for (int block = 0; block < blocks; ++block) sum += partial[block * rows * kRanks + index];
  dz.row(t)[r] = __float2bfloat16_rn(sum);
}

bool takes(const ConvCall& call, std::initializer_list<Tensor> tensors) {
  const auto& shape = call.shape;
  if (tensors.begin()->dtype() != DType::bf16 || !packable(16, tensors)) return false;
  if (tensors.begin()->rows() > INT32_MAX - kRing) return false;
  return shape.width <= kTaps && shape.filter_rank <= kRanks && shape.filter_rank % 8 == 0 &&
         call.rows.halo.empty() && call.filters.s.contiguous() && call.filters.u.contiguous() &&
         packable(16, {call.filters.s, call.filters.u});
}

// How rows are cut for `blocks` blocks in all: by the shape alone, so that bits are too.
template <int Warps>
LowrankCall describe(const ConvCall& call, const Tensor& x, const Tensor& dy, int blocks) {
  const std::int64_t wide = ceil_div<std::int64_t>(x.cols(), Block<Warps>::kChannels);
  const std::int64_t chunks = std::max<std::int64_t>(1, blocks / wide);
  const std::int64_t rows =
      ceil_div<std::int64_t>(ceil_div<std::int64_t>(x.rows(), chunks), kTokens) * kTokens;
  return {read_rows<bf16>(x),
          read_rows<bf16>(dy),
          read_rows<bf16>(call.filters.generated),
          data_of<bf16>(call.filters.s),
          data_of<bf16>(call.filters.u),
          call.rows.reach.data<std::int32_t>(),
          x.rows(),
          rows,
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
  if (input && !packable(16, {g.dx})) return false;
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
  launch_overlapped(kernel, grid, Sizes::kThreads, kBytes, call.stream, rows_of<bf16>(g.dx), dz,
                    weights, c);
  if (input) {
    const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(c.rows * kRanks, 256));
    launch_overlapped(add_dz_kernel, blocks, 256, 0, call.stream, rows_of<bf16>(g.dgenerated), dz,
                      c.rows, c.rank, static_cast<int>(grid.x));
  }
  if (weight) {
    add_conv_weights(data_of<float>(g.ds), data_of<float>(g.du), weights, static_count,
                     weight_count, grid.y, call.stream);
  }
  return true;
}

}  // namespace convoy::cuda
