// How dynamic convolutions in bf16 lay their work out for the matrix units, which make the filters
// K[t, w, d] = s[w, d] + sum_r z[t, r] u[r, w, d]: low-rank ones, and head-wise ones, whose z are
// the generated taps and whose u chooses a tap of the channel's group. A block has a stripe of
// channels, 16 or 32 a warp, and walks down a chunk of rows in tiles of 32 tokens, which arrive in
// a ring in shared memory while the tile before is computed. In the filters' matrix products
//
//   lane 4 g + c owns tokens 8 c ... 8 c + 7 of the tile and, of each 16 channels, two: with S
//   times 16 channels a warp these 2 S lie side by side from 2 S g on
//
//   left operand   u^T [16 channels, depth], n < S: row g + 8 h is channel 2 S g + 2 n + h
//   right operand  z^T [depth, 8 tokens], i = 0 ... 3: column 2 c + e is token 8 c + 4 e + i
//   depth          of 16, low-rank: 2 c + e is rank 4 c + e, 8 + 2 c + e is rank 4 c + 2 + e
//                  of 8, head-wise: 2 c + e is tap e, or 2 + e, of the warp's group c
//
// so that u and s stay in registers and a lane's filters meet inputs that lie side by side.
#pragma once

#include <bit>

#include "core/conv_shape.h"
#include "core/cuda/conv.h"
#include "core/cuda/elements.cuh"
#include "core/cuda/launch.cuh"
#include "core/cuda/mma.cuh"

namespace convoy::cuda::mma_conv {

constexpr int kTokens = 32;  // of a tile
constexpr int kRanks = 16, kTaps = 4;
constexpr int kRing = 4 * kTokens;  // rows
constexpr int kLead = 8;            // rows of the ring before a chunk's first row
constexpr int kOwn = 8;             // tokens of a lane
constexpr int kSeen = kOwn + kTaps - 1;
constexpr int kMostGroups = 16;  // of a block, head-wise

struct MmaConvCall {
  Rows<const bf16> x, dy, z;
  const bf16 *s, *u;
  const std::int32_t* reach;
  std::int64_t rows, chunk_rows;
  int channels, width;
  int rank;       // or, head-wise, channels of a group
  int z_columns;  // log2 of the columns of z that a block takes
  int z_shift;    // log2 of those that move as one, 3 to 0
  bool residual;
  bool whole_packs;  // 8 channels of a row move as one, else 4
};

// A block of `Warps` warps, `Sets` times 16 channels each, and its shared memory in bytes. All
// threads fill the ring.
template <int Warps, int Sets, bool Headwise, bool Backward>
struct Block {
  static constexpr bool kHeadwise = Headwise;
  static constexpr bool kWholePacks = false;  // promised: rows and z move in packs of 16 bytes
  static constexpr int kThreads = 32 * Warps, kLoaders = kThreads;
  static constexpr int kChannels = 16 * Sets * Warps;
  static constexpr int kPitch = std::bit_ceil(2u * kChannels);  // of a row of the ring
  static constexpr int kRowsBytes = kRing * kPitch;
  static constexpr int kDy = kRowsBytes;                      // where dy begins
  static constexpr int kZ = kRowsBytes * (Backward ? 2 : 1);  // where z begins
  static constexpr int kZPitch = Headwise ? kMostGroups * kTaps * 2 : kRanks * 2;
  static constexpr int kReach = kZ + kRing * kZPitch;
  static constexpr int kRingBytes = kReach + kRing * 4;
};

// The 16-byte pieces of a row of the ring change places within 128 bytes, by this number of bytes,
// so that neither 8 rows 4 apart nor pairs of pieces of 4 rows 8 apart meet in a bank.
__device__ constexpr int piece_swap(int row) { return row / 4 % 8 * 16; }

// The same for z, by fours of rows: for 8 fours, and pairs of pieces of 4 fours.
__device__ constexpr int quad_swap(int quad) { return ((quad & 3) << 1 | (quad >> 2 & 1)) * 16; }

// A copy that the compiler does not know to be one, and so keeps instead of making it again from
// what it came from.
template <class T>
__device__ inline T kept(T v) {
  return __shfl_sync(~0u, v, static_cast<int>(threadIdx.x));
}

// A place in a ring of rows of `Pitch` bytes, given for the tile at the ring's beginning: byte
// `column` of row `row`, of which the first kLead are before the tile. The ring holds a whole
// number of tiles, and a tile of swaps; so the place in another tile is so many bytes further
// round.
template <int Pitch>
__device__ inline unsigned ring_place(int row, int column) {
  return row * Pitch + (column ^ piece_swap(row));
}
template <int Pitch>
__device__ inline std::uint32_t ring_at(std::uint32_t rows, unsigned place, unsigned tile) {
  return rows + (place + tile * kTokens * Pitch) % (kRing * Pitch);
}

// Two places of a lane in one register.
template <int Pitch>
class Places {
 public:
  __device__ Places(unsigned first, unsigned second) : both_(kept(first | second << 16)) {
    static_assert(kRing * Pitch <= 1 << 16, "16 bits hold a place");
  }
  __device__ std::uint32_t first(std::uint32_t rows, unsigned tile) const {
    return rows + (both_ + tile * kTokens * Pitch) % (kRing * Pitch);
  }
  __device__ std::uint32_t second(std::uint32_t rows, unsigned tile) const {
    return rows + ((both_ + (tile * kTokens * Pitch << 16)) >> 16) % (kRing * Pitch);
  }

 private:
  std::uint32_t both_;
};

// The first of the lane's 2 S channels, within the block.
template <int Sets>
__device__ inline int lane_channel() {
  return threadIdx.x / 32 * 16 * Sets + threadIdx.x % 32 / 4 * 2 * Sets;
}
__device__ inline int lane_token() { return threadIdx.x % 4 * kOwn; }

// Pairs of a lane's channels in one row, loaded and stored as one.
template <int Sets>
struct alignas(4 * Sets) Pairs {
  Pair set[Sets];
};

// Where a lane finds its channels of its 8 tokens of a tile and of the 3 before or after: tokens
// First to First + kSeen - 1.
template <int Sets, int Pitch, int First>
class LaneColumn {
 public:
  __device__ LaneColumn() : LaneColumn(lane_channel<Sets>()) {}
  // The lane's first channel is `channel` of the block.
  __device__ explicit LaneColumn(int channel)
      : places_(place(channel, 0), place(channel, First < 0 ? -kOwn : kOwn)) {}

  __device__ void load(Pairs<Sets> (&to)[kSeen], std::uint32_t rows, unsigned tile) const {
    const std::uint32_t own = places_.first(rows, tile), other = places_.second(rows, tile);
#pragma unroll
    for (int i = 0; i < kSeen; ++i) {
      const bool is_own = First + i >= 0 && First + i < kOwn;
      to[i] = load_row(is_own ? own : other, (First + i) & (kOwn - 1));
    }
  }
  // The lane's own tokens, of a ring that need not be the same.
  __device__ void load_own(Pairs<Sets> (&to)[kOwn], std::uint32_t rows, unsigned tile) const {
    const std::uint32_t own = places_.first(rows, tile);
#pragma unroll
    for (int i = 0; i < kOwn; ++i) to[i] = load_row(own, i);
  }

 private:
  // Of a row whose lowest three bits are zeros.
  static __device__ unsigned place(int channel, int further) {
    return ring_place<Pitch>(kLead + lane_token() + further, channel * 2);
  }
  static __device__ Pairs<Sets> load_row(std::uint32_t eight, int row) {
    const std::uint32_t at = (eight ^ piece_swap(row)) + row * Pitch;
    Pairs<Sets> pairs;
    if constexpr (Sets == 1) {
      pairs.set[0] = static_cast<Pair>(load_shared4(at));
    } else {
      const uint2 loaded = load_shared8(at);
      pairs.set[0] = loaded.x, pairs.set[1] = loaded.y;
    }
    return pairs;
  }
  Places<Pitch> places_;
};

// A place in the ring of z, as ring_place(): a byte of four rows that lie one behind the other.
template <int ZPitch>
__device__ inline unsigned z_place(int quad, int byte) {
  return quad * 4 * ZPitch + (byte ^ quad_swap(quad));
}

// Right operands of z: token i of column 4 g + i, 0 to 7; 4 values from `byte` of the row on.
template <int ZPitch>
class LaneRanks {
 public:
  __device__ explicit LaneRanks(int byte) : quads_(place(0, byte), place(1, byte)) {}

  template <int Count>
  __device__ void load(uint2 (&to)[kOwn - 1], std::uint32_t z, unsigned tile) const {
    const std::uint32_t first = quads_.first(z, tile), second = quads_.second(z, tile);
#pragma unroll
    for (int i = 0; i < Count; ++i) to[i] = load_shared8((i < 4 ? first : second) ^ i % 4 * ZPitch);
  }

 private:
  static __device__ unsigned place(int further, int byte) {
    return z_place<ZPitch>(kLead / 4 + threadIdx.x % 32 / 4 + further, byte);
  }
  Places<ZPitch> quads_;
};

// Which taps of a lane's tokens, 0 to 10, meet no document's start. One register: for tap w, bit i
// of its part is whether token i reaches w rows back, as far as the taps of own tokens ask, up to i
// = kOwn - 1 + w. Tap 0 always does.
class LaneReach {
 public:
  __device__ void load(std::uint32_t reach, unsigned tile) {
    seen_ = 0;
#pragma unroll
    for (int i = 0; i < kSeen; ++i) {
      const int far = load_shared4(ring_at<4>(reach, (kLead + lane_token() + i) * 4, tile));
#pragma unroll
      for (int w = 1; w < kTaps; ++w) {
        if (i < kOwn + w && far >= w) seen_ |= 1u << (part(w) + i);
      }
    }
  }
  __device__ bool sees(int token, int w) const {
    return w == 0 || (seen_ >> (part(w) + token) & 1u) != 0;
  }

 private:
  static constexpr __device__ int part(int w) { return w == 1 ? 0 : (w == 2 ? 9 : 19); }
  unsigned seen_ = 0;
};

// Fills the ring, 32 rows at a time from kLead rows before the chunk on; rows, channels and ranks
// outside of the tensors become zeros. A thread copies the same 16 bytes of every 8th or 16th row.
// Where a block has several rings, each is filled by Sizes::kLoaders of its threads.
template <class Sizes, bool Backward>
class RowLoader {
 public:
  __device__ RowLoader(std::uint32_t memory, const MmaConvCall& call, int channel0,
                       std::int64_t chunk_first)
      : call_(call),
        memory_(memory),
        first_(static_cast<int>(chunk_first) - kLead),
        last_whole_(static_cast<int>(call.rows) - kTokens),
        inside_(channel0 + pack() * 8 < call.channels),
        column_(inside_ ? channel0 + pack() * 8 : 0),
        to_(kept(ring_place<Sizes::kPitch>(row(), pack() * 16))) {
    const int z_first = Sizes::kHeadwise ? channel0 / call.rank * kTaps : 0;
    z_ = call.z.data + z_first;
    z_inside_ = Sizes::kHeadwise ? call.channels / call.rank * kTaps - z_first : call.rank;
  }

  __device__ void next() {
    const std::uint32_t to = memory_ + slot_ * Sizes::kPitch + to_;
    if (first_ >= 0 && first_ <= last_whole_) {
      copy_rows<true>(to, call_.x, 0);
      if (copies_dy()) copy_rows<true>(to, call_.dy, Sizes::kDy);
    } else {
      copy_rows<false>(to, call_.x, 0);
      if (copies_dy()) copy_rows<false>(to, call_.dy, Sizes::kDy);
    }
    if (copies_reach()) {
      copy_reach();
    } else {
      copy_ranks();
    }
    first_ += kTokens;
    slot_ = (slot_ + kTokens) % kRing;
    commit_copies();
  }

  // Waits for all that a tile needs. Whether the tile is whole: all of its rows exist, and no tap
  // of its tokens (and of the 3 after) meets a document's start. Every thread of the block must
  // call it, and ask for what the tile after next needs then.
  __device__ bool wait(unsigned tile) {
    wait_copies<1>();
    bool broken = false;
    if (copies_reach()) {  // has its own copies already
      const unsigned row = threadIdx.x % kTokens;
      const std::uint32_t reach = memory_ + Sizes::kReach;
      const int least = max(call_.width - 1, 1);  // rows that do not exist reach nowhere
      broken =
          (row >= kLead && load_shared4(ring_at<4>(reach, row * 4, tile)) < least) ||
          (row < kLead + kTaps - 1 && load_shared4(ring_at<4>(reach, row * 4, tile + 1)) < least);
    }
    return __syncthreads_or(broken) == 0;
  }
  __device__ bool arrive(unsigned tile) {
    const bool whole = wait(tile);
    next();
    return whole;
  }

 private:
  static constexpr int kPacks = Sizes::kChannels / 8;
  static constexpr int kStep = Sizes::kLoaders / kPacks;  // rows that one round of copies covers
  static_assert(kStep == 8 || kStep == 16, "rows of two rounds differ in bit 3 or 4");

  static __device__ unsigned thread() {
    if constexpr (Sizes::kLoaders == Sizes::kThreads) return threadIdx.x;
    return threadIdx.x % Sizes::kLoaders;
  }
  static __device__ bool copies_reach() { return thread() >= Sizes::kLoaders - kTokens; }
  static __device__ int row() { return thread() / kPacks; }
  static __device__ int pack() { return thread() % kPacks; }
  __device__ bool copies_dy() const {
    if constexpr (Sizes::kLoaders == Sizes::kThreads) return Backward;
    return Backward && call_.dy.data != nullptr;
  }
  __device__ bool has(int row) const {
    return static_cast<unsigned>(first_ + row) < static_cast<unsigned>(call_.rows);
  }
  // Whole: all of the 32 rows exist. ring: where the rows' ring begins behind that of x.
  template <bool Whole>
  __device__ void copy_rows(std::uint32_t to, const Rows<const bf16>& rows, int ring) const {
    const auto stride = static_cast<int>(rows.stride * sizeof(bf16));
    const auto column = reinterpret_cast<std::uint64_t>(rows.data + column_);
    const std::uint64_t first = address_after(column, first_ + row(), stride);
    if (Sizes::kWholePacks || call_.whole_packs) {
#pragma unroll
      for (int i = 0; i < kTokens; i += kStep) {
        const bool there = inside_ && (Whole || has(row() + i));
        const std::uint64_t from = Whole || there ? address_after(first, stride, i) : column;
        const std::uint32_t pack = (to ^ piece_swap(i)) + i * Sizes::kPitch + ring;
        copy_once_ahead(pack, reinterpret_cast<const void*>(from), there);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kTokens; i += kStep) {
        const bool there = inside_ && (Whole || has(row() + i));
        const std::uint64_t from = Whole || there ? address_after(first, stride, i) : column;
        const std::uint32_t pack = (to ^ piece_swap(i)) + i * Sizes::kPitch + ring;
        copy_ahead<8>(pack, reinterpret_cast<const void*>(from), there);
        copy_ahead<8>(pack + 8, reinterpret_cast<const void*>(from + 8), there);
      }
    }
  }
  // first + count * bytes in one instruction, of which the compiler makes several.
  static __device__ std::uint64_t address_after(std::uint64_t first, int count, int bytes) {
    std::uint64_t address;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(address) : "r"(count), "r"(bytes), "l"(first));
    return address;
  }

  __device__ void copy_reach() const {
    const int row = threadIdx.x % kTokens;
    const bool there = has(row);
    copy_ahead<4>(memory_ + Sizes::kReach + (slot_ + row) * 4,
                  call_.reach + (there ? first_ + row : 0), there);
  }

  // The block's columns of z, in pieces of 1 << z_shift.
  __device__ void copy_ranks() const {
    constexpr int kOthers = Sizes::kLoaders - kTokens;
    const int shift = Sizes::kWholePacks ? 3 : call_.z_shift;
    const int columns = Sizes::kWholePacks ? std::countr_zero(unsigned{kRanks}) : call_.z_columns;
#pragma unroll 1
    for (unsigned i = thread(); i < kTokens << columns >> shift; i += kOthers) {
      const unsigned row = i << shift >> columns, column = (i << shift) & ((1u << columns) - 1);
      const unsigned quad = (slot_ + row) / 4;
      const std::uint32_t to = memory_ + Sizes::kZ +
                               z_place<Sizes::kZPitch>(quad, row % 4 * Sizes::kZPitch + column * 2);
      const bool there = static_cast<int>(column) < z_inside_ && has(row);
      const bf16* from = there ? z_ + (first_ + row) * call_.z.stride + column : call_.z.data;
      if (shift == 3) {
        copy_ahead(to, from, there);
      } else if (shift == 2) {
        copy_ahead<8>(to, from, there);
      } else if (shift == 1) {
        copy_ahead<4>(to, from, there);
      } else {
        asm volatile("st.shared.u16 [%0], %1;" ::"r"(to),
                     "h"(there ? __bfloat16_as_ushort(*from) : std::uint16_t{0})
                     : "memory");
      }
    }
  }

  const MmaConvCall& call_;
  std::uint32_t memory_;
  int first_, last_whole_;
  unsigned slot_ = 0;
  bool inside_;
  int column_, to_, z_inside_;
  const bf16* z_;
};

// Where a lane stores its channels of its tokens of a tile, whose first row is `first`. The first
// of its channels is `channel` of the block, whose first one is channel0.
template <int Sets>
class LaneStore {
 public:
  __device__ LaneStore(const Rows<bf16>& to, const MmaConvCall& call, int channel0, int first,
                       int channel = lane_channel<Sets>())
      : stride_(static_cast<unsigned>(to.stride) * sizeof(bf16)),
        left_(static_cast<int>(call.rows) - first - lane_token()),
        inside_(channel0 + channel < call.channels),
        to_(reinterpret_cast<char*>(to.data) +
            (std::int64_t{first + lane_token()} * stride_ +
             (channel0 + channel) * static_cast<int>(sizeof(bf16)))) {}

  // Whole: all of the tile's rows exist.
  template <bool Whole>
  __device__ void store(int token, const Pairs<Sets>& pairs) const {
    char* to = to_ + token * stride_;
    const bool there = inside_ && (Whole || token < left_);
    if constexpr (Sets == 1) {
      if (there) __stcs(reinterpret_cast<Pair*>(to), pairs.set[0]);
    } else {
      if (there) __stcs(reinterpret_cast<uint2*>(to), uint2{pairs.set[0], pairs.set[1]});
    }
  }

 private:
  unsigned stride_;  // bytes
  int left_;
  bool inside_;
  char* to_;
};

// Whether the kernels take a call whose rows lie in `tensors`.
inline bool takes(const ConvCall& call, std::initializer_list<Tensor> tensors) {
  const auto& shape = call.shape;
  if (tensors.begin()->dtype() != DType::bf16 || !packable(8, tensors)) return false;
  if (tensors.begin()->cols() % 8 != 0) return false;
  if (tensors.begin()->rows() > INT32_MAX - kRing || !call.rows.halo.empty()) return false;
  for (const Tensor& t : tensors) {  // a lane's tokens lie within 32 bits of each other
    if (t.row_stride() > INT32_MAX / 16) return false;
  }
  if (!call.filters.s.contiguous() || !packable(16, {call.filters.s})) return false;
  if (shape.kind == FilterKind::headwise) {
    const std::int64_t size = shape.head_size;
    return shape.width == kTaps && size >= 8 && (size & (size - 1)) == 0 &&
           packable(kTaps * 2, {call.filters.generated});
  }
  return shape.width <= kTaps && shape.filter_rank <= kRanks && call.filters.u.contiguous() &&
         packable(16, {call.filters.u});
}

// Rows of each of about `chunks` chunks, whole tiles.
inline std::int64_t chunk_rows(std::int64_t rows, std::int64_t chunks) {
  const std::int64_t even = ceil_div(rows, std::max<std::int64_t>(1, chunks));
  return ceil_div<std::int64_t>(even, kTokens) * kTokens;
}

// Whether whole packs may be promised of such a call.
inline bool has_whole_packs(const ConvCall& call, std::initializer_list<Tensor> tensors) {
  return packable(16, tensors) && packable(16, {call.filters.generated});
}

// A call whose rows are cut for `blocks` blocks in all: by the shape alone, so that bits are too.
inline MmaConvCall describe(const ConvCall& call, const Tensor& x, const Tensor& dy,
                            int block_channels, int blocks) {
  const std::int64_t wide = ceil_div<std::int64_t>(x.cols(), block_channels);
  const Tensor& z = call.filters.generated;
  const bool headwise = call.shape.kind == FilterKind::headwise;
  const auto size = static_cast<int>(headwise ? call.shape.head_size : call.shape.filter_rank);
  const int columns = headwise ? std::max(1, block_channels / size) * kTaps : kRanks;
  int shift = 3;
  while (shift > 0 && (columns % (1 << shift) != 0 || !packable(2 << shift, {z}))) --shift;
  return {read_rows<bf16>(x),
          read_rows<bf16>(dy),
          read_rows<bf16>(z),
          data_of<bf16>(call.filters.s),
          headwise ? nullptr : data_of<bf16>(call.filters.u),
          call.rows.reach.data<std::int32_t>(),
          x.rows(),
          chunk_rows(x.rows(), blocks / wide),
          static_cast<int>(x.cols()),
          call.shape.width,
          size,
          std::countr_zero(static_cast<unsigned>(columns)),
          shift,
          call.shape.residual,
          packable(16, {x, dy.empty() ? x : dy})};
}

inline dim3 grid_of(const MmaConvCall& call, int block_channels) {
  return {static_cast<unsigned>(ceil_div(call.channels, block_channels)),
          static_cast<unsigned>(ceil_div(call.rows, call.chunk_rows))};
}

}  // namespace convoy::cuda::mma_conv
