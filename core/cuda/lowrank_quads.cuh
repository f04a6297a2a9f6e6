// The forward pass of low-rank convolutions as the first part of a larger kernel. A warp makes 32
// tokens by 32 channels a time and a lane owns 4 consecutive tokens by 8 channels: two quads of 4
// channels that may lie apart. With half a head between them a lane has both halves of every pair
// that RoPE turns. A block's 128 channels belong to one
// convolution or, half of them each, to two.
#pragma once

#include "core/backend.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/lowrank_tiles.cuh"

namespace convoy::cuda {

// Of a block.
constexpr int kQuadWarps = 4, kQuadThreads = 32 * kQuadWarps;
constexpr int kQuadChannels = 32 * kQuadWarps, kQuadPacks = kQuadChannels / 8;

struct QuadConv {
  Rows<const bf16> x, z;
  const bf16 *s, *u;
  int channels, rank, width;
  float residual;  // 1 or 0
};

// Which channels of a block a lane owns: its two quads begin `half` channels apart, and the lanes
// of all warps go on with the next quads, run of `2 half` channels after run.
struct QuadOrder {
  int half;

  // First channel of the lower quad of lane `place` of the 16 that share their tokens.
  __device__ int lower(int place) const { return 4 * place / half * 2 * half + 4 * place % half; }
  __device__ int place_of(int channel) const {
    return (channel / (2 * half) * half + channel % half) / 4;
  }
  __device__ bool is_upper(int channel) const { return channel % (2 * half) >= half; }
};

// What lies where in shared memory, and how many bytes it takes. In every other 8 rows of x the two
// halves of each 64 bytes are exchanged, so that the quads of lanes 8 rows apart lie in other
// banks.
template <int Convs>
struct QuadShared {
  static constexpr int kPitch = kQuadChannels * 2 + 16;
  static constexpr int kZBytes = kRing / 4 * 5 * 2 * kRanks;
  static constexpr int kX = 0, kZ = kX + kRing * kPitch, kReach = kZ + Convs * kZBytes,
                       kPositions = kReach + kRing * 4, kU = kPositions + kRing * 4,
                       kS = kU + kTaps * kRanks * kPitch,
                       kBytes = kS + kTaps * kQuadChannels / 2 * 16;
  std::uint32_t x, z_ring, reach, positions, u, s, end;

  __device__ explicit QuadShared(std::uint32_t base)
      : x(base + kX),
        z_ring(base + kZ + conv_of_warp() * kZBytes),
        reach(base + kReach),
        positions(base + kPositions),
        u(base + kU),
        s(base + kS),
        end(base + kBytes) {}
  __device__ static int conv_of_warp() { return threadIdx.x / 32 / (kQuadWarps / Convs); }
  __device__ std::uint32_t s_pair(int w, int warp, int j, int c) const {
    return s + ((w * kQuadWarps + warp) * 16 + 4 * j + c) * 16;
  }
  __device__ std::uint32_t z_row(int slot) const { return z_ring + z_offset(slot); }
  __device__ static std::uint32_t z_offset(int slot) { return (slot + slot / 4) * 2 * kRanks; }
  __device__ static int exchange(int slot) { return slot / 8 % 2 * 32; }
};

// The channels of a block: `count` of each convolution from `first` on.
struct QuadChannels {
  int first, count;

  __device__ bool has(int channel, const QuadConv& conv) const {
    return channel < count && first + channel < conv.channels;
  }
};

// u of the block's channels in the order that the matrix units want, and s as accumulators do.
// Zeros where there are no more ranks, taps or channels.
template <int Convs>
__device__ inline void load_quad_filters(const QuadShared<Convs>& shared, const QuadConv* convs,
                                         const QuadChannels& channels, const QuadOrder& order) {
  constexpr int kOwn = kTaps * kRanks * kQuadPacks / kQuadThreads, kOfConv = kQuadPacks / Convs;
  const int pack = threadIdx.x % kQuadPacks, row0 = threadIdx.x / kQuadPacks;
  const QuadConv& conv = convs[pack / kOfConv];
  const int channel = pack % kOfConv * 8;
  const bool inside = channels.has(channel, conv);
  const auto load = [&](const bf16* row, bool there) {
    uint4 loaded = {0, 0, 0, 0};
    if (there && inside) {
      loaded = *reinterpret_cast<const uint4*>(row + channels.first + channel);
    }
    return loaded;
  };
  uint4 held[kOwn];
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const int row = row0 + i * (kQuadThreads / kQuadPacks);
    const int w = row / kRanks, rank = rank_at(row % kRanks);
    held[i] = load(conv.u + (rank * conv.width + w) * std::int64_t{conv.channels},
                   w < conv.width && rank < conv.rank);
  }
  const uint4 s = load(conv.s + row0 * std::int64_t{conv.channels}, row0 < conv.width);
  // Where the two quads of the pack go: column tiles j and j + 1 of a place.
  int place[2], j[2];
#pragma unroll
  for (int q = 0; q < 2; ++q) {
    place[q] = order.place_of(pack * 8 + 4 * q);
    j[q] = order.is_upper(pack * 8 + 4 * q) ? 2 : 0;
    if (place[q] >= 4 * kQuadWarps) return;  // the rest of a block that whole heads do not fill
  }
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    const std::uint32_t row =
        shared.u + (row0 + i * (kQuadThreads / kQuadPacks)) * QuadShared<Convs>::kPitch;
    const Pair pairs[4] = {held[i].x, held[i].y, held[i].z, held[i].w};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      store_shared4(row + place[e / 2] / 4 * 64 + (j[e / 2] + e % 2) * 16 + place[e / 2] % 4 * 4,
                    pairs[e]);
    }
  }
  if (row0 >= kTaps) return;
  const Pair pairs[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float low = low_of(pairs[e]), high = high_of(pairs[e]);
    store_shared16(shared.s_pair(row0, place[e / 2] / 4, j[e / 2] + e % 2, place[e / 2] % 4), low,
                   high, low, high);
  }
}

// Fills the ring, 32 rows at a time from kLead rows before the chunk on; rows and channels outside
// of the tensors become zeros. `positions` may be null.
template <int Convs>
class QuadLoader {
 public:
  __device__ QuadLoader(std::uint32_t base, const QuadConv* convs, const QuadChannels& channels,
                        const std::int32_t* reach, const std::int32_t* positions, std::int64_t rows,
                        std::int64_t chunk_first)
      : base_(base), first_(static_cast<int>(chunk_first) - kLead), rows_(static_cast<int>(rows)) {
    const QuadConv& conv = convs[pack() / kOfConv];
    const int channel = pack() % kOfConv * 8;
    inside_ = channels.has(channel, conv);
    x_ = conv.x.data + (first_ + row()) * conv.x.stride + (inside_ ? channels.first + channel : 0);
    x_step_ = kStep * conv.x.stride;
    const QuadConv& of_z = convs[threadIdx.x / 64 % Convs];
    z_inside_ = threadIdx.x % 2 * 8 < of_z.rank;
    z_ = of_z.z.data + (first_ + z_row()) * of_z.z.stride + threadIdx.x % 2 * 8;
    z_step_ = kTokens * of_z.z.stride;
    index_ = (threadIdx.x / kTokens % 2 == 0 ? reach : positions);
    if (index_ != nullptr) index_ += first_ + static_cast<int>(threadIdx.x % kTokens);
    fallback_ = conv.x.data;
  }

  __device__ void next() {
    using Shared = QuadShared<Convs>;
    const std::uint32_t to = base_ + Shared::kX + (slot_ + row()) * Shared::kPitch;
#pragma unroll
    for (int i = 0; i < kTokens / kStep; ++i) {
      copy(to + i * kStep * Shared::kPitch + (pack() * 16 ^ Shared::exchange(i * kStep)), x_,
           inside_ && has(row() + i * kStep));
      x_ += x_step_;
    }
    if (threadIdx.x < 64 * Convs) {
      copy(base_ + Shared::kZ + threadIdx.x / 64 * Shared::kZBytes +
               Shared::z_offset(slot_ + z_row()) + threadIdx.x % 2 * 16,
           z_, z_inside_ && has(z_row()));
    }
    if (threadIdx.x < 2 * kTokens && index_ != nullptr) {
      const int row = threadIdx.x % kTokens;
      const bool there = has(row);
      copy_ahead<4>(
          base_ + (threadIdx.x < kTokens ? Shared::kReach : Shared::kPositions) + (slot_ + row) * 4,
          there ? static_cast<const void*>(index_) : fallback_, there);
    }
    z_ += z_step_;
    if (index_ != nullptr) index_ += kTokens;
    first_ += kTokens;
    slot_ = (slot_ + kTokens) % kRing;
    commit_copies();
  }

 private:
  static constexpr int kOfConv = kQuadPacks / Convs;
  static constexpr int kStep = kQuadThreads / kQuadPacks;  // rows that one round of copies covers
  static_assert(kStep == 8, "the halves that are exchanged change with every round");

  static __device__ int row() { return threadIdx.x / kQuadPacks; }
  static __device__ int pack() { return threadIdx.x % kQuadPacks; }
  static __device__ int z_row() { return threadIdx.x % 64 / 2; }
  __device__ bool has(int row) const {
    return static_cast<unsigned>(first_ + row) < static_cast<unsigned>(rows_);
  }
  __device__ void copy(std::uint32_t to, const bf16* from, bool there) const {
    copy_ahead(to, there ? static_cast<const void*>(from) : fallback_, there);
  }

  std::uint32_t base_;
  int first_, rows_, slot_ = 0;
  bool inside_, z_inside_;
  const bf16 *x_, *z_;
  std::int64_t x_step_, z_step_;
  const std::int32_t* index_;
  const void* fallback_;  // an address that may be named where nothing is read
};

// A lane's channels, of the block: 4 from `lower` on and 4 from `upper` on, where it has any.
struct QuadLane {
  int lower, upper;
  bool inside;

  __device__ QuadLane(const QuadOrder& order, int block_channels) {
    const int place = threadIdx.x / 32 * 4 + threadIdx.x % 4;
    inside = place * 8 < block_channels;
    lower = inside ? order.lower(place) : 0;
    upper = lower + order.half;
  }
};

// Rows -3 to 3 of the lane's quads. Apart: they are not neighbours.
template <bool Apart, int Convs>
__device__ inline void load_quads(Pair (&v)[7][4], const QuadShared<Convs>& shared,
                                  const LaneRows& rows, const QuadLane& lane) {
  using Shared = QuadShared<Convs>;
#pragma unroll
  for (int i = 0; i < 7; ++i) {
    const int four = i < 3 ? rows.before : rows.own;  // rows that exchange halves alike
    const std::uint32_t row = shared.x + (i < 3 ? four + 1 + i : four + i - 3) * Shared::kPitch;
    if (!Apart) {
      const uint4 both = load_shared16(row + (lane.lower * 2 ^ Shared::exchange(four)));
      v[i][0] = both.x, v[i][1] = both.y, v[i][2] = both.z, v[i][3] = both.w;
      continue;
    }
    const uint2 low = load_shared8(row + (lane.lower * 2 ^ Shared::exchange(four)));
    const uint2 high = load_shared8(row + (lane.upper * 2 ^ Shared::exchange(four)));
    v[i][0] = low.x, v[i][1] = low.y, v[i][2] = high.x, v[i][3] = high.y;
  }
}

// sum[i][e]: token i of the lane, channel e of its lower quad below 4, of its upper one from 4 on.
template <bool Masked, bool Apart, int Convs>
__device__ inline void convolve_quads(float (&sum)[4][8], const ColumnFilters (&filters)[4],
                                      const QuadShared<Convs>& shared, const LaneRows& rows,
                                      const QuadLane& lane, float residual) {
  Pair x[7][4];
  ZPair z[2];
  unsigned seen[kTaps];
  load_quads<Apart>(x, shared, rows, lane);
  for (int m = 0; m < 2; ++m) load_z(z[m], shared, rows, 2 * m);
#pragma unroll
  for (int w = 0; w < kTaps; ++w) seen[w] = Masked ? reaching(shared, rows, w) : 0;
  start_sum(sum, x, residual);
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
    apply_filters<Masked>(sum, f, x, j, seen);
  }
}

template <bool Apart, int Convs>
__device__ inline void convolve_tile(float (&sum)[4][8], const ColumnFilters (&filters)[4],
                                     const QuadShared<Convs>& shared, int slot,
                                     const QuadLane& lane, const QuadConv& conv) {
  const LaneRows rows(slot);
  if (all_reach(shared, slot, conv.width)) {
    convolve_quads<false, Apart>(sum, filters, shared, rows, lane, conv.residual);
  } else {
    convolve_quads<true, Apart>(sum, filters, shared, rows, lane, conv.residual);
  }
}

// Stores the lane's 4 tokens of a tile at rows below `end`; `to` is at the block's first channel.
__device__ inline void store_quads(Rows<bf16> to, const Pair (&packed)[4][4], const QuadLane& lane,
                                   std::int64_t tile_first, std::int64_t end) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t t = tile_first + threadIdx.x % 32 / 4 * 4 + i;
    if (t >= end) return;
    *reinterpret_cast<uint2*>(to.row(t) + lane.lower) = {packed[i][0], packed[i][1]};
    *reinterpret_cast<uint2*>(to.row(t) + lane.upper) = {packed[i][2], packed[i][3]};
  }
}
__device__ inline void pack_quads(Pair (&packed)[4][4], const float (&sum)[4][8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int q = 0; q < 4; ++q) packed[i][q] = pack_pair(sum[i][2 * q], sum[i][2 * q + 1]);
  }
}

// How many rows `wide` blocks side by side walk down: so that about two blocks an SM of
// the largest card are busy to the end, by the shape alone. One wave where two are not better.
inline std::int64_t quad_chunk_rows(std::int64_t rows, std::int64_t wide) {
  constexpr std::int64_t kSlots = 264;
  const std::int64_t one = std::max<std::int64_t>(1, kSlots / wide);
  const std::int64_t two = std::max<std::int64_t>(1, 2 * kSlots / wide);
  const bool better = 10 * two * wide > 21 * one * wide;  // of the slots of two waves, by 5 %
  return ceil_div<std::int64_t>(ceil_div(rows, better ? two : one), kTokens) * kTokens;
}

// Whether these kernels take a convolution of rows without a halo.
inline bool quads_take(const ConvFilters& filters, const ConvShape& shape, const ConvRows& rows,
                       const Tensor& x) {
  return shape.kind == FilterKind::lowrank && x.dtype() == DType::bf16 && rows.halo.empty() &&
         rows.part == ConvPart::all && x.rows() <= INT32_MAX - kRing && shape.width <= kTaps &&
         shape.filter_rank <= kRanks && shape.filter_rank % 8 == 0 && filters.s.contiguous() &&
         filters.u.contiguous() && packable(16, {x, filters.generated, filters.s, filters.u});
}

inline QuadConv describe_quads(const ConvFilters& filters, const ConvShape& shape,
                               const Tensor& x) {
  return {read_rows<bf16>(x),
          read_rows<bf16>(filters.generated),
          data_of<bf16>(filters.s),
          data_of<bf16>(filters.u),
          static_cast<int>(x.cols()),
          static_cast<int>(shape.filter_rank),
          shape.width,
          shape.residual ? 1.0f : 0.0f};
}

}  // namespace convoy::cuda
