// Tiles of 32 tokens by 32 channels of a low-rank convolution's forward pass, one a warp: filters
// K[t, w, d] = s[w, d] + sum_r z[t, r] u[r, w, d] as the matrix units take and leave them, and
// their application. Rows and columns are taken in such an order that a lane owns 4 consecutive
// tokens and 8 channels of every filter, input and output:
//
//   accumulator (tile m, half h) of lane 4 g + c: token 4 g + 2 m + h
//
//   depth k of the ranks: rank 4 (k / 2) + k % 2 below 8, 2 more from 8 on
//
// `Shared` says where z, reach, u and s lie in a kernel's shared memory: z_row(slot), reach, u,
// kPitch and s_pair(w, warp, j, c).
#pragma once

#include "core/cuda/mma.cuh"

namespace convoy::cuda {

constexpr int kTokens = 32;  // of a tile
constexpr int kRanks = 16, kTaps = 4;
constexpr int kRing = 4 * kTokens;  // rows
constexpr int kLead = 4;            // rows of the ring before a chunk's first row

__device__ inline int rank_at(int k) { return k % 8 / 2 * 4 + k % 2 + k / 8 * 2; }

// A lane's place in the tile that begins at `slot` of the ring: its 4 tokens and the 4 before.
struct LaneRows {
  int before, own;  // slots, of the first of 4

  __device__ explicit LaneRows(int slot) {
    own = (slot + threadIdx.x % 32 / 4 * 4) % kRing;
    before = (own + kRing - 4) % kRing;
  }
};

// Whether no tap of the tile's tokens meets a document's start.
template <class Shared>
__device__ inline bool all_reach(const Shared& shared, int slot, int width) {
  const int lane = threadIdx.x % 32;
  const bool whole = load_shared4(shared.reach + (slot + lane) % kRing * 4) >= width - 1;
  return __all_sync(~0u, whole);
}

// The filters of one tile of 8 columns as the matrix units take them: u of each tap as a right
// operand of depth 16, s of each tap as an accumulator whose rows are all s.
struct ColumnFilters {
  Pair u[kTaps][2];
  float s[kTaps][4];

  template <class Shared>
  __device__ void load(const Shared& shared, int j) {
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

template <class Shared>
__device__ inline void load_z(ZPair& z, const Shared& shared, const LaneRows& lane, int first) {
  // One by one, so that each lands in its place of the operand.
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t ranks = shared.z_row(lane.own + first + i) + threadIdx.x % 4 * 8;
    z[i] = static_cast<Pair>(load_shared4(ranks));
    z[i + 2] = static_cast<Pair>(load_shared4(ranks + 4));
  }
}

// sum[i][.] of the lane's 4 tokens starts from the residual: in[i + 3], times 1 or 0.
__device__ inline void start_sum(float (&sum)[4][8], const Pair (&in)[7][4], float residual) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      sum[i][2 * q] = residual * low_of(in[i + 3][q]);
      sum[i][2 * q + 1] = residual * high_of(in[i + 3][q]);
    }
  }
}

// Adds filter times input for one tile of columns. f[w][m] are the filters of tap w; the taps of
// token i read in[i + 3 - w]. Each input is widened once.
// Masked: tap w of token i counts where bit i of seen[w] is set.
template <bool Masked>
__device__ inline void apply_filters(float (&sum)[4][8], const float (&f)[kTaps][2][4],
                                     const Pair (&in)[7][4], int j, const unsigned (&seen)[kTaps]) {
#pragma unroll
  for (int row = 0; row < 7; ++row) {
    const float low = low_of(in[row][j]), high = high_of(in[row][j]);
#pragma unroll
    for (int w = 0; w < kTaps; ++w) {
      const int i = row - 3 + w;
      if (i < 0 || i > 3) continue;
      if (Masked && (seen[w] >> i & 1u) == 0) continue;
      sum[i][2 * j] += f[w][i / 2][i % 2 * 2] * low;
      sum[i][2 * j + 1] += f[w][i / 2][i % 2 * 2 + 1] * high;
    }
  }
}

// Bit i: whether token i of the lane reaches w rows back.
template <class Shared>
__device__ inline unsigned reaching(const Shared& shared, const LaneRows& lane, int w) {
  unsigned seen = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (load_shared4(shared.reach + (lane.own + i) * 4) >= w) seen |= 1u << i;
  }
  return seen;
}

}  // namespace convoy::cuda
