// Low-rank filters K[t, w, d] = s[w, d] + sum_r z[t, r] u[r, w, d] in bf16 on the matrix units, for
// up to 16 ranks and 4 taps; shorter filters are padded with zeros. A warp walks down the rows in
// tiles of 32 tokens by 32 channels, in such an order of rows and columns that a lane owns 4
// consecutive tokens and 8 consecutive channels of every filter, input and output:
//
//   accumulator (tile m, half h) of lane 4 g + c: token 4 g + 2 m + h
//   column 2 c + e of the tile j of 8 columns:    channel 8 c + 2 j + e, stored at place 8 j + 2 c + e
//   depth k of the ranks:                          rank 4 (k / 2) + k % 2 below 8, 2 more from 8 on
//
// Filters are never stored. The backward pass reads x and dy once: dx from filters made again, and
// from the products p = dy x (rounded to bf16) dz = p u, du = z^T p and ds = 1^T p. Rows arrive in a
// ring in shared memory while the tile before is computed. Sums over channel blocks (dz) and over
// chunks of rows (du, ds) go through device memory and are added in order.
#include "core/conv_shape.h"
#include "core/cuda/conv.h"
#include "core/cuda/conv_weights.cuh"
#include "core/cuda/elements.cuh"
#include "core/cuda/mma.cuh"

namespace convoy::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kChannels = 32 * kWarps;       // of a block
constexpr int kTokens = 32;                  // of a tile
constexpr int kRanks = 16, kTaps = 4;
constexpr int kRing = 4 * kTokens;           // rows
constexpr int kPitch = kChannels * 2 + 16;   // bytes of a row of the ring, of u and of s
constexpr int kLead = 4;                     // rows of the ring before a chunk's first row

// Shared memory, in bytes. Four rows of z are followed by a gap that sets the next four off.
constexpr int kRowsBytes = kRing * kPitch;
constexpr int kZBytes = kRing / 4 * 5 * 2 * kRanks;
constexpr int kReachBytes = kRing * 4;
constexpr int kFilterBytes = (kTaps * kRanks + kTaps + 1) * kPitch;
constexpr int kSumPitch = 5 * 4 * kRanks;    // of 4 tokens of one warp's dz, gap included
constexpr int kSumBytes = kWarps * kTokens / 4 * kSumPitch;
constexpr int kForwardBytes = kRowsBytes + kZBytes + kReachBytes + kFilterBytes;
constexpr int kBackwardBytes = kForwardBytes + kRowsBytes + kSumBytes;

struct LowrankCall {
  Rows<const bf16> x, dy, z;
  const bf16 *s, *u;
  const std::int32_t* reach;
  std::int64_t rows, chunk_rows;
  int channels, rank, width;
  bool residual;
};

__device__ inline int rank_at(int k) { return k % 8 / 2 * 4 + k % 2 + k / 8 * 2; }

// What lies where in shared memory.
struct Shared {
  std::uint32_t x, z, reach, u, s, dy, sums;

  __device__ explicit Shared(std::uint32_t base)
      : x(base),
        z(x + kRowsBytes),
        reach(z + kZBytes),
        u(reach + kReachBytes),
        s(u + kTaps * kRanks * kPitch),
        dy(base + kForwardBytes),
        sums(dy + kRowsBytes) {}
  __device__ std::uint32_t z_row(int slot) const { return z + (slot + slot / 4) * 2 * kRanks; }
};

__device__ inline uint4 load_shared16(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}
__device__ inline uint2 load_shared8(std::uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address) : "memory");
  return v;
}
__device__ inline int load_shared4(std::uint32_t address) {
  int v;
  asm volatile("ld.shared.s32 %0, [%1];" : "=r"(v) : "r"(address) : "memory");
  return v;
}
__device__ inline void store_shared4(std::uint32_t address, Pair v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}
__device__ inline void copy_ahead4(std::uint32_t to, const void* from, bool there) {
  const int bytes = there ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}

// u and s of the block's channels, in the order that the matrix units want; zeros where there are
// no more ranks, taps or channels. After s lies a row of zeros.
__device__ inline void load_filters(const Shared& shared, const LowrankCall& call, int channel0) {
  constexpr int kPairs = kChannels / 2;
  for (int index = threadIdx.x; index < (kTaps * kRanks + kTaps + 1) * kPairs; index += kThreads) {
    const int row = index / kPairs, pair = index % kPairs;
    const int channel = channel0 + 2 * pair;
    const bool is_u = row < kTaps * kRanks;
    const int w = is_u ? row / kRanks : row - kTaps * kRanks;
    const int rank = rank_at(row % kRanks);
    Pair value = 0;
    if (channel < call.channels && w < call.width && (!is_u || rank < call.rank)) {
      const bf16* from = is_u ? call.u + (rank * call.width + w) * std::int64_t{call.channels}
                              : call.s + w * std::int64_t{call.channels};
      value = *reinterpret_cast<const Pair*>(from + channel);
    }
    const int place = pair / 16 * 16 + pair % 4 * 4 + pair % 16 / 4;
    store_shared4(shared.u + row * kPitch + place * 4, value);
  }
}

// The block of 32 rows of the ring with number `block`; rows outside of the tensor become zeros.
template <bool Backward>
__device__ inline void load_rows(const Shared& shared, const LowrankCall& call, int channel0,
                                 std::int64_t chunk_first, int block) {
  const std::int64_t first = chunk_first - kLead + block * kTokens;
  const int slot0 = block * kTokens % kRing;
  constexpr int kPacks = kChannels / 8;
#pragma unroll
  for (int i = 0; i < kTokens * kPacks / kThreads; ++i) {
    const int row = i * (kThreads / kPacks) + threadIdx.x / kPacks, pack = threadIdx.x % kPacks;
    const std::int64_t t = first + row;
    const int channel = channel0 + pack * 8;
    const bool there = t >= 0 && t < call.rows && channel < call.channels;
    const std::uint32_t to = (slot0 + row) * kPitch + pack * 16;
    const std::int64_t source = there ? t : 0;
    const int column = there ? channel : 0;
    copy_ahead(shared.x + to, call.x.row(source) + column, there);
    if (Backward) copy_ahead(shared.dy + to, call.dy.row(source) + column, there);
  }
  if (threadIdx.x < 2 * kTokens) {
    const int row = threadIdx.x / 2, half = threadIdx.x % 2;
    const std::int64_t t = first + row;
    const bool there = t >= 0 && t < call.rows && half * 8 < call.rank;
    copy_ahead(shared.z_row(slot0 + row) + half * 16,
               call.z.row(there ? t : 0) + (there ? half * 8 : 0), there);
  } else if (threadIdx.x < 3 * kTokens) {
    const int row = threadIdx.x - 2 * kTokens;
    const std::int64_t t = first + row;
    const bool there = t >= 0 && t < call.rows;
    copy_ahead4(shared.reach + (slot0 + row) * 4, call.reach + (there ? t : 0), there);
  }
  commit_copies();
}

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
  __device__ int at(int i) const { return i < 0 ? before + 4 + i : (i < 4 ? own + i : after + i - 4); }
};

// Rows -3 to 3 (or 0 to 6, from `First` on) of the lane's 8 channels.
template <int First>
__device__ inline void load_lane(Pair (&v)[7][4], std::uint32_t rows, const LaneRows& lane) {
  const std::uint32_t column = threadIdx.x / 32 * 64 + threadIdx.x % 4 * 16;
#pragma unroll
  for (int i = 0; i < 7; ++i) {
    const uint4 loaded = load_shared16(rows + lane.at(First + i) * kPitch + column);
    v[i][0] = loaded.x, v[i][1] = loaded.y, v[i][2] = loaded.z, v[i][3] = loaded.w;
  }
}

// Whether no tap of the tile's tokens (and of the 3 after it) meets a document's start.
__device__ inline bool all_reach(const Shared& shared, int slot, int width) {
  const int lane = threadIdx.x % 32;
  bool whole = load_shared4(shared.reach + (slot + lane) % kRing * 4) >= width - 1;
  if (lane < kTaps - 1) {
    whole = whole && load_shared4(shared.reach + (slot + kTokens + lane) % kRing * 4) >= width - 1;
  }
  return __all_sync(~0u, whole);
}

// Filters of tap w at columns [8 j, 8 j + 16) for tokens whose z is given: s first, then z u.
__device__ inline void make_filters(float (&f)[2][2][4], const Shared& shared,
                                    const Pair (&z)[2][4], int w, int j) {
  const int lane = threadIdx.x % 32;
  const std::uint32_t column = threadIdx.x / 32 * 64 + (j + lane / 16) * 16;
  Pair s[4];
  // Row 0 of each 8 x 8 matrix is s, the others are zeros; two matrices are not used.
  load_matrices_transposed(s, shared.s + (lane % 8 == 0 ? w : kTaps) * kPitch + column);
  const Pair one = threadIdx.x % 4 == 0 ? 0x3f80u : 0u;
  Pair u[4];
  load_matrices_transposed(
      u, shared.u + (w * kRanks + lane / 8 % 2 * 8 + lane % 8) * kPitch + column);
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    multiply_half(f[m][0], one, one, s[0]);
    multiply_half(f[m][1], one, one, s[2]);
    multiply_add(f[m][0], z[m], u[0], u[1]);
    multiply_add(f[m][1], z[m], u[2], u[3]);
  }
}

// z of tokens first .. first + 3 of the lane, as left operands of the two tiles.
__device__ inline void load_z(Pair (&z)[2][4], const Shared& shared, const LaneRows& lane,
                              int first) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint2 ranks =
        load_shared8(shared.z_row(lane.at(first + i)) + threadIdx.x % 4 * 8);
    z[i / 2][i % 2] = ranks.x;
    z[i / 2][i % 2 + 2] = ranks.y;
  }
}

// sum[i][.] of the lane's 4 tokens, starting from the residual: in[i + offset] where there is one.
__device__ inline void start_sum(float (&sum)[4][8], const Pair (&in)[7][4], int offset,
                                 bool residual) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      sum[i][2 * q] = residual ? low_of(in[i + offset][q]) : 0.0f;
      sum[i][2 * q + 1] = residual ? high_of(in[i + offset][q]) : 0.0f;
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
    *reinterpret_cast<uint4*>(to.row(t) + channel) = packed;
  }
}

// sum[i] += filter of tap w * in[i + offset] for two tiles of columns from j on. Masked: only where
// `seen`, one bit a token.
template <bool Masked>
__device__ inline void apply_filters(float (&sum)[4][8], const float (&f)[2][2][4],
                                     const Pair (&in)[7][4], int offset, int j, unsigned seen) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (Masked && (seen >> i & 1u) == 0) continue;
#pragma unroll
    for (int jj = 0; jj < 2; ++jj) {
      const Pair pair = in[i + offset][j + jj];
      sum[i][2 * (j + jj)] += f[i / 2][jj][i % 2 * 2] * low_of(pair);
      sum[i][2 * (j + jj) + 1] += f[i / 2][jj][i % 2 * 2 + 1] * high_of(pair);
    }
  }
}

// Bit i: whether token first + i of the lane reaches w rows back.
__device__ inline unsigned reaching(const Shared& shared, const LaneRows& lane, int first, int w) {
  unsigned seen = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (load_shared4(shared.reach + lane.at(first + i) * 4) >= w) seen |= 1u << i;
  }
  return seen;
}

template <bool Masked>
__device__ inline void forward_tile(float (&sum)[4][8], const Shared& shared,
                                    const LaneRows& lane, bool residual) {
  Pair x[7][4], z[2][4];
  load_lane<-3>(x, shared.x, lane);
  load_z(z, shared, lane, 0);
  start_sum(sum, x, 3, residual);
#pragma unroll
  for (int w = 0; w < kTaps; ++w) {
    const unsigned seen = Masked ? reaching(shared, lane, 0, w) : 0;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      float f[2][2][4];
      make_filters(f, shared, z, w, j);
      apply_filters<Masked>(sum, f, x, 3 - w, j, seen);
    }
  }
}

__global__ void __launch_bounds__(kThreads, 2) forward_kernel(Rows<bf16> y, LowrankCall call) {
  extern __shared__ __align__(16) char memory[];
  const Shared shared(shared_address(memory));
  const int channel0 = blockIdx.x * kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  for (int block = 0; block < 3; ++block) load_rows<false>(shared, call, channel0, first, block);
  load_filters(shared, call, channel0);
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    load_rows<false>(shared, call, channel0, first, tile + 3);
    const int slot = (kLead + tile * kTokens) % kRing;
    const LaneRows lane(slot);
    float sum[4][8];
    if (all_reach(shared, slot, call.width)) {
      forward_tile<false>(sum, shared, lane, call.residual);
    } else {
      forward_tile<true>(sum, shared, lane, call.residual);
    }
    store_sum(y, sum, first + tile * kTokens, end, channel0, call.channels);
  }
  wait_copies<0>();
}

// dx[t] = sum over taps of K[t + w, w] dy[t + w].
template <bool Masked>
__device__ inline void input_tile(float (&sum)[4][8], const Shared& shared, const LaneRows& lane,
                                  bool residual) {
  Pair dy[7][4];
  load_lane<0>(dy, shared.dy, lane);
  start_sum(sum, dy, 0, residual);
#pragma unroll
  for (int w = 0; w < kTaps; ++w) {
    Pair z[2][4];
    load_z(z, shared, lane, w);
    const unsigned seen = Masked ? reaching(shared, lane, w, w) : 0;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
      float f[2][2][4];
      make_filters(f, shared, z, w, j);
      apply_filters<Masked>(sum, f, dy, w, j, seen);
    }
  }
}

// The sums of a warp's products: dz of this tile, du and ds of all its tiles.
struct WeightSums {
  float u[kTaps][4][4];  // [tap][column tile][rank rows g, g + 8 by columns 2c, 2c + 1]
  float s[4][4];         // row g is tap g
};

template <bool Masked, bool Input, bool Weight>
__device__ inline void product_tile(float (&dz)[2][2][4], WeightSums& sums, const Shared& shared,
                                    const LaneRows& lane) {
  const int in_warp = threadIdx.x % 32;
  Pair x[7][4], dy[4][4], left[2][4];
  load_lane<-3>(x, shared.x, lane);
  const std::uint32_t column = threadIdx.x / 32 * 64 + threadIdx.x % 4 * 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint4 loaded = load_shared16(shared.dy + lane.at(i) * kPitch + column);
    dy[i][0] = loaded.x, dy[i][1] = loaded.y, dy[i][2] = loaded.z, dy[i][3] = loaded.w;
  }
  if (Weight) {
    Pair z[2][4];
    load_z(z, shared, lane, 0);
#pragma unroll
    for (int m = 0; m < 2; ++m) {  // tokens 2m and 2m + 1 of each lane are one depth of 16
      left[m][0] = transpose_matrix(z[m][0]);
      left[m][1] = transpose_matrix(z[m][2]);
      left[m][2] = transpose_matrix(z[m][1]);
      left[m][3] = transpose_matrix(z[m][3]);
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
        load_matrices(u, shared.u + (w * kRanks + in_warp / 16 * 8 + in_warp % 8) * kPitch +
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

// Adds dz of the 8 warps in order: partial [channel block, rows, kRanks].
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
  const int token = threadIdx.x / 8, pair = threadIdx.x % 8;
  float low = 0, high = 0;
  const std::uint32_t from = sums + token / 4 * kSumPitch + token % 4 * 4 * kRanks + pair * 8;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) {
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
        *reinterpret_cast<float2*>(place + (1 + rank) * stride + w * std::int64_t{call.channels}) = {
            sums.u[w][q][2 * half], sums.u[w][q][2 * half + 1]};
      }
    }
  }
}

template <bool Input, bool Weight>
__global__ void __launch_bounds__(kThreads, 1)
    backward_kernel(Rows<bf16> dx, float* dz_partial, float* weight_partial, LowrankCall call) {
  extern __shared__ __align__(16) char memory[];
  const Shared shared(shared_address(memory));
  const int channel0 = blockIdx.x * kChannels;
  const std::int64_t first = blockIdx.y * call.chunk_rows;
  const std::int64_t end = min(first + call.chunk_rows, call.rows);
  for (int block = 0; block < 3; ++block) load_rows<true>(shared, call, channel0, first, block);
  load_filters(shared, call, channel0);
  WeightSums sums = {};
  for (int tile = 0; first + tile * kTokens < end; ++tile) {
    wait_copies<1>();
    __syncthreads();
    load_rows<true>(shared, call, channel0, first, tile + 3);
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
      reduce_dz(dz_partial + blockIdx.x * call.rows * kRanks, dz, shared.sums, tile_first, end);
    }
  }
  wait_copies<0>();
  if (Weight) {
    store_weights(weight_partial + blockIdx.y * std::int64_t{1 + call.rank} * call.width *
                                       call.channels,
                  sums, call, channel0);
  }
}

// dz [rows, rank] = sum over channel blocks, in order.
__global__ void add_dz_kernel(Rows<bf16> dz, const float* partial, std::int64_t rows, int rank,
                              int blocks) {
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
  return shape.width <= kTaps && shape.filter_rank <= kRanks && shape.filter_rank % 8 == 0 &&
         call.rows.halo.empty() && call.filters.s.contiguous() && call.filters.u.contiguous() &&
         packable(4, {call.filters.s, call.filters.u});
}

// How rows are cut for `blocks` blocks in all: by the shape alone, so that bits are too.
LowrankCall describe(const ConvCall& call, const Tensor& x, const Tensor& dy, int blocks) {
  const std::int64_t wide = ceil_div<std::int64_t>(x.cols(), kChannels);
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
          call.shape.residual};
}

dim3 grid_of(const LowrankCall& call) {
  return {static_cast<unsigned>(ceil_div(call.channels, kChannels)),
          static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows))};
}

template <class Kernel>
void allow_shared(Kernel kernel, int bytes) {
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

}  // namespace

bool lowrank_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  if (!takes(call, {x, y, call.filters.generated})) return false;
  const LowrankCall c = describe(call, x, {}, 264);
  allow_shared(forward_kernel, kForwardBytes);
  forward_kernel<<<grid_of(c), kThreads, kForwardBytes, call.stream>>>(rows_of<bf16>(y), c);
  check_launch();
  return true;
}

bool lowrank_conv_backward(const ConvCall& call, const ConvGradients& g, Tensor dy, Tensor x,
                           ConvWants wants) {
  const bool input = wants != ConvWants::weight, weight = wants != ConvWants::input;
  if (!takes(call, {x, dy, call.filters.generated})) return false;
  if (input && !packable(16, {g.dx})) return false;
  const LowrankCall c = describe(call, x, dy, 132);
  const dim3 grid = grid_of(c);
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
  allow_shared(kernel, kBackwardBytes);
  kernel<<<grid, kThreads, kBackwardBytes, call.stream>>>(rows_of<bf16>(g.dx), dz, weights, c);
  if (input) {
    const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(c.rows * kRanks, 256));
    add_dz_kernel<<<blocks, 256, 0, call.stream>>>(rows_of<bf16>(g.dgenerated), dz, c.rows, c.rank,
                                                   static_cast<int>(grid.x));
  }
  if (weight) {
    add_conv_weights(data_of<float>(g.ds), data_of<float>(g.du), weights, static_count,
                     weight_count, grid.y, call.stream);
  }
  check_launch();
  return true;
}

}  // namespace convoy::cuda
