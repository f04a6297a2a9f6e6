// How the rows of static and head-wise convolutions in bf16 reach the threads that walk down them:
// a warp owns 128 neighbouring channels, 4 a lane, and a ring of batches of rows in shared memory
// that it fills ahead by itself, so that warps never wait for each other.
#pragma once

#include "core/cuda/elements.cuh"
#include "core/cuda/shared_memory.cuh"

namespace convoy::cuda {

constexpr int V = 4;  // channels of a lane
constexpr int kWarpLanes = 32;
constexpr int kWarpChannels = kWarpLanes * V;

struct DirectCall {
  Rows<const bf16> x, dy, generated, s;
  const std::int32_t* reach;
  int rows, chunk_rows;
  int channels;
  int lane_shift;  // log2 of the lanes that share a group of channels
  bool residual;
  int stage_bytes;  // of a warp's batch of rows in shared memory
};

// Rows of a batch; a multiple of the taps, so that the places of a window of W rows turn round
// within it.
template <int W>
constexpr int kBatchRows = W == 3 ? 3 : 4;

template <int W>
constexpr int kTapBytes = 2 * W;  // of a row's generated taps of one group

// Whether a row's taps of one group are of a size that moves as one.
template <int W>
constexpr bool kTapsTravel = W == 2 || W == 4;

// Which rows and channels a lane has. Lanes past the channels stay for what the warp does together.
struct LanePart {
  int warp, lane;      // of the block, of the warp
  int first_channel;   // of the warp
  int channel, group;  // of the lane; 0 where it has none
  bool inside;         // its channels exist
  int first, end;      // rows of the block

  __device__ explicit LanePart(const DirectCall& call)
      : warp(static_cast<int>(threadIdx.x) / kWarpLanes),
        lane(static_cast<int>(threadIdx.x) % kWarpLanes),
        first_channel(static_cast<int>(blockIdx.x * blockDim.x + warp * kWarpLanes) * V),
        channel(first_channel + lane * V < call.channels ? first_channel + lane * V : 0),
        group((channel / V) >> call.lane_shift),
        inside(first_channel + lane * V < call.channels),
        first(static_cast<int>(blockIdx.y) * call.chunk_rows),
        end(min(first + call.chunk_rows, call.rows)) {}
};

__device__ inline void widen_channels(float (&to)[V], uint2 packed) {
  to[0] = __uint_as_float(packed.x << 16);
  to[1] = __uint_as_float(packed.x & 0xffff0000u);
  to[2] = __uint_as_float(packed.y << 16);
  to[3] = __uint_as_float(packed.y & 0xffff0000u);
}

__device__ inline uint2 row_or_zero(const Rows<const bf16>& from, int t, int rows, int channel) {
  if (t < 0 || t >= rows) return {0, 0};
  return *reinterpret_cast<const uint2*>(from.row(t) + channel);
}

// Stores a lane's channels of a row that will not be read again soon.
__device__ inline void store_channels(bf16* to, const float (&from)[V]) {
  const __nv_bfloat162 low = __floats2bfloat162_rn(from[0], from[1]);
  const __nv_bfloat162 high = __floats2bfloat162_rn(from[2], from[3]);
  __stcs(reinterpret_cast<uint2*>(to),
         uint2{*reinterpret_cast<const Pair*>(&low), *reinterpret_cast<const Pair*>(&high)});
}

// The static taps of a lane's channels, the residual added to tap 0.
template <int W>
__device__ inline void load_static(float (&s)[W][V], const DirectCall& call, int channel) {
#pragma unroll
  for (int w = 0; w < W; ++w) {
    widen_channels(s[w], *reinterpret_cast<const uint2*>(call.s.row(w) + channel));
  }
  if (!call.residual) return;
#pragma unroll
  for (int e = 0; e < V; ++e) s[0][e] += 1.0f;
}

// A lane's part of a batch, as it is stored.
template <int W, bool Generates, bool Backward>
struct LaneRows {
  static constexpr int kRows = kBatchRows<W>;
  uint2 x[kRows], dy[Backward ? kRows : 1];
  Pair taps[Generates ? kRows : 1][(W + 1) / 2];

  __device__ float tap(int row, int w) const {
    const Pair pair = taps[row][w / 2];
    return __uint_as_float(w % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
  }
};

// The ring of one warp: batches of x, of dy and of generated taps, `Stages` of them. Rows at or
// past `stop` and channels that do not exist are zeros.
template <int W, bool Generates, bool Backward, int Stages>
class WarpRing {
 public:
  static constexpr int kRows = kBatchRows<W>;
  static constexpr int kRowBytes = kWarpChannels * 2;
  using Batch = LaneRows<W, Generates, Backward>;

  static int stage_bytes(int lane_shift) {
    const int taps =
        Generates && kTapsTravel<W> ? kRows * (kWarpLanes >> lane_shift) * kTapBytes<W> : 0;
    return kTapsAt + ceil_div(taps, 16) * 16;
  }

  // Asks for as many batches, from row part.first on, as the ring may hold beside the one in use.
  __device__ WarpRing(const DirectCall& call, const LanePart& part, std::uint32_t memory, int stop)
      : call_(call),
        part_(part),
        begin_(memory + part.warp * Stages * call.stage_bytes),
        filled_(begin_),
        used_(begin_ + (Stages - 1) * call.stage_bytes),
        coming_(part.first),
        stop_(stop),
        pack_inside_(part.first_channel + pack() * 8 < call.channels) {
    const int column = pack_inside_ ? part.first_channel + pack() * 8 : 0;
    x_ = call.x.row(coming_ + row()) + column;
    if (Backward) dy_ = call.dy.row(coming_ + row()) + column;
    for (int stage = 0; stage < Stages - 1; ++stage) ask();
  }

  // The next batch, from row t0 on. Asks for another one in the place of the one before.
  __device__ void next(Batch& batch, int t0) {
    wait_copies<Stages - 2>();
    __syncwarp();
    used_ = after(used_);
    ask();
    const std::uint32_t lane = used_ + part_.lane * V * 2;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      batch.x[i] = load_shared8(lane + i * kRowBytes);
      if (Backward) batch.dy[i] = load_shared8(lane + (kRows + i) * kRowBytes);
      if (Generates) load_taps(batch.taps[i], i, t0);
    }
  }

 private:
  static constexpr int kTapsAt = kRows * kRowBytes * (Backward ? 2 : 1);
  static constexpr int kRowPacks = kRowBytes / 16;       // copies of 16 bytes
  static constexpr int kRound = kWarpLanes / kRowPacks;  // rows that one copy of each lane covers

  __device__ int pack() const { return part_.lane % kRowPacks; }
  __device__ int row() const { return part_.lane / kRowPacks; }
  __device__ std::uint32_t after(std::uint32_t stage) const {
    const std::uint32_t next = stage + call_.stage_bytes;
    return next == begin_ + Stages * call_.stage_bytes ? begin_ : next;
  }

  __device__ void ask() {
    if (coming_ < stop_ + (Backward ? W - 1 : 0)) {  // a walk back takes W - 1 rows of zeros more
#pragma unroll
      for (int i = 0; i < kRows; i += kRound) {
        if (kRows % kRound != 0 && i + row() >= kRows) continue;
        const bool there = pack_inside_ && coming_ + i + row() < stop_;
        const std::uint32_t to = filled_ + i * kRowBytes + part_.lane * 16;
        copy_ahead(to, there ? x_ + i * call_.x.stride : call_.x.data, there);
        if (!Backward) continue;
        copy_ahead(to + kRows * kRowBytes, there ? dy_ + i * call_.dy.stride : call_.dy.data,
                   there);
      }
      if constexpr (Generates && kTapsTravel<W>) ask_taps();
    }
    commit_copies();
    x_ += kRows * call_.x.stride;
    if (Backward) dy_ += kRows * call_.dy.stride;
    coming_ += kRows;
    filled_ = after(filled_);
  }

  __device__ void ask_taps() {
    const int shift = 5 - call_.lane_shift;  // log2 of the warp's groups
    const int first_group = (part_.first_channel / V) >> call_.lane_shift;
#pragma unroll 1
    for (int i = part_.lane; i < kRows << shift; i += kWarpLanes) {
      const int t = coming_ + (i >> shift);
      const int group = first_group + (i & ((1 << shift) - 1));
      const bool there = t < stop_ && (group << call_.lane_shift) * V < call_.channels;
      copy_ahead<kTapBytes<W>>(filled_ + kTapsAt + i * kTapBytes<W>,
                               there ? call_.generated.row(t) + group * W : call_.generated.data,
                               there);
    }
  }

  // Taps that do not travel are read where they lie.
  __device__ void load_taps(Pair (&taps)[(W + 1) / 2], int i, int t0) const {
    const int in_warp = part_.lane >> call_.lane_shift;
    const std::uint32_t from =
        used_ + kTapsAt + (((kWarpLanes >> call_.lane_shift) * i) + in_warp) * kTapBytes<W>;
    if constexpr (W == 4) {
      const uint2 both = load_shared8(from);
      taps[0] = both.x, taps[1] = both.y;
    } else if constexpr (W == 2) {
      taps[0] = static_cast<Pair>(load_shared4(from));
    } else {
      const auto* there = reinterpret_cast<const unsigned short*>(
          call_.generated.row(min(t0 + i, call_.rows - 1)) + part_.group * W);
#pragma unroll
      for (int w = 0; w < W; w += 2) {
        taps[w / 2] = there[w];
        if (w + 1 < W) taps[w / 2] |= Pair{there[w + 1]} << 16;
      }
    }
  }

  const DirectCall& call_;
  const LanePart& part_;
  std::uint32_t begin_, filled_, used_;
  int coming_, stop_;
  bool pack_inside_;
  const bf16 *x_, *dy_ = nullptr;
};

// How many rows back the rows of a batch may look, asked for a batch ahead: lane i has row i % 4.
class ReachAhead {
 public:
  __device__ ReachAhead(const DirectCall& call, int first)
      : reach_(call.reach), last_(call.rows - 1) {
    ask(first);
  }
  // That of the batch before becomes that of the batch that was asked for; `after` is the next.
  __device__ void next(int after) {
    now_ = coming_;
    ask(after);
  }
  __device__ bool all(int width) const { return __all_sync(~0u, now_ >= width - 1); }
  __device__ int of(int row) const { return __shfl_sync(~0u, now_, row); }

 private:
  __device__ void ask(int first) {
    coming_ = reach_[min(first + static_cast<int>(threadIdx.x) % 4, last_)];
  }
  const std::int32_t* reach_;
  int last_, now_ = 0, coming_;
};

}  // namespace convoy::cuda
