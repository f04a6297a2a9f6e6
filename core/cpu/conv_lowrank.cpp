// Low-rank filters K[t, w, d] = s[w, d] + sum_r z[t, r] u[r, w, d] on a CPU. The filters of a tile
// of rows and channels are made in registers and used there, never stored: a pass costs R
// multiply-adds a tap and channel and hardly any memory traffic. Channels are taken in blocks whose
// u stays in the first-level cache while all rows pass by.
#include <algorithm>

#include "core/conv_shape.h"
#include "core/cpu/conv.h"
#include "core/cpu/conv_rows.h"
#include "core/cpu/tile.h"

namespace convoy::cpu {
namespace {

constexpr int kRows = kTileRows / 2;  // rows of a filter tile: filters and sums both in registers

template <class T>
constexpr std::int64_t kChunk = kTileVectors* kLanes<T>;  // channels of a tile

template <class T>
using Tile = Vec<T>[kRows][kTileVectors];

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// s [W][Dp] and u [W][R][Dp] with the channels padded to whole chunks.
template <class T>
struct PackedFilters {
  std::int64_t channels, padded, rank;
  int width;
  bool residual;
  T *s, *u;

  explicit PackedFilters(const ConvCall& call)
      : channels(call.filters.s.cols()),
        padded(round_up(channels, kChunk<T>)),
        rank(call.shape.filter_rank),
        width(call.shape.width),
        residual(call.shape.residual),
        s(call.scratch.take<T>(width * padded)),
        u(call.scratch.take<T>(width * rank * padded)) {
    for (int w = 0; w < width; ++w) {
      copy_padded(s + w * padded, call.filters.s.row<T>(w));
      for (std::int64_t r = 0; r < rank; ++r) {
        copy_padded(u + (w * rank + r) * padded, call.filters.u.row<T>(r * width + w));
      }
    }
    if (residual) {  // x + conv(x): the residual is one more on tap 0
      for (std::int64_t d = 0; d < channels; ++d) s[d] += T(1);
    }
  }

  // Channels whose u fits the first-level cache.
  std::int64_t block() const {
    constexpr std::int64_t kCacheBytes = 24 * 1024;
    const std::int64_t a_channel = width * rank * std::int64_t{sizeof(T)};
    return std::max(kCacheBytes / a_channel / kChunk<T> * kChunk<T>, kChunk<T>);
  }

  void copy_padded(T* target, const T* source) const {
    std::copy_n(source, channels, target);
    std::fill(target + channels, target + padded, T(0));
  }
};

// Rows that stand in where a tile or a tap leaves the sequence: reads give 0, writes go nowhere.
template <class T>
struct OutsideRows {
  T *zeros, *nowhere;

  OutsideRows(Scratch& scratch, std::int64_t channels)
      : zeros(scratch.take<T>(channels)), nowhere(scratch.take<T>(channels)) {
    std::fill(zeros, zeros + channels, T(0));
    std::fill(nowhere, nowhere + channels, T(0));
  }
};

// sum += filters * x for one tap of a tile, the filters made in registers.
// z [kRows][R] and x [kRows] are those of the rows whose filters are meant.
template <class T, bool Whole>
[[gnu::always_inline]] inline void add_tap(Tile<T>& sum, const PackedFilters<T>& packed,
                                           Broadcast<T> z, T* const (&x)[kRows], int w,
                                           std::int64_t d0) {
  Tile<T> filter;
  const T* s = packed.s + w * packed.padded + d0;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kTileVectors; ++j) filter[i][j] = load(s + j * kLanes<T>);
  }
  multiply_tile<T, kRows, kTileVectors>(filter, z, packed.u + w * packed.rank * packed.padded + d0,
                                        packed.padded, packed.rank);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kTileVectors; ++j) {
      const std::int64_t d = d0 + j * kLanes<T>;
      sum[i][j] += filter[i][j] * load_some<Whole>(x[i] + d, packed.channels - d);
    }
  }
}

// What a tile multiplies at each tap: the filters of rows z[w], and rows x[w].
template <class T>
struct TileInputs {
  Broadcast<T> z[kMaxConvWidth];
  T* x[kMaxConvWidth][kRows];
};

template <class T, bool Whole>
void run_tile(const PackedFilters<T>& packed, const TileInputs<T>& in, std::int64_t d0,
              T* const (&out)[kRows]) {
  Tile<T> sum = {};
  for (int w = 0; w < packed.width; ++w) add_tap<T, Whole>(sum, packed, in.z[w], in.x[w], w, d0);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kTileVectors; ++j) {
      const std::int64_t d = d0 + j * kLanes<T>;
      store_some<Whole>(out[i] + d, sum[i][j], packed.channels - d);
    }
  }
}

template <class T>
void run_tile_block(const PackedFilters<T>& packed, const TileInputs<T>& in, std::int64_t begin,
                    std::int64_t end, T* const (&out)[kRows]) {
  for (std::int64_t d0 = begin; d0 < end; d0 += kChunk<T>) {
    if (d0 + kChunk<T> <= packed.channels) {
      run_tile<T, true>(packed, in, d0, out);
    } else {
      run_tile<T, false>(packed, in, d0, out);
    }
  }
}

// Rows of z, contiguous, with zeros after the last so that tiles may run over the end.
template <class T>
T* copy_z(const ConvCall& call, std::int64_t rows, std::int64_t stride, std::int64_t more_rows) {
  T* z = call.scratch.take<T>((rows + more_rows) * stride);
  std::fill(z, z + (rows + more_rows) * stride, T(0));
  for (std::int64_t t = 0; t < rows; ++t) {
    std::copy_n(call.filters.generated.row<T>(t), call.shape.filter_rank, z + t * stride);
  }
  return z;
}

template <class T>
void forward(const ConvCall& call, Tensor y, Tensor x) {
  call.scratch.reset();
  const PackedFilters<T> packed(call);
  const OutsideRows<T> outside(call.scratch, packed.padded);
  const T* z = copy_z<T>(call, x.rows(), packed.rank, kRows);
  const TapRows<T> sources(x, call.rows.halo, call.rows, packed.width, outside.zeros);
  for (std::int64_t begin = 0; begin < packed.padded; begin += packed.block()) {
    const std::int64_t end = std::min(begin + packed.block(), packed.padded);
    for_each_run(call.rows, packed.width, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t t0 = first; t0 < last; t0 += kRows) {
        TileInputs<T> in;
        T* out[kRows];
        for (int i = 0; i < kRows; ++i) {
          const bool valid = t0 + i < last;
          out[i] = valid ? y.row<T>(t0 + i) : outside.nowhere;
          for (int w = 0; w < packed.width; ++w) {
            in.x[w][i] = valid ? sources.at(t0 + i, w) : outside.zeros;
          }
        }
        for (int w = 0; w < packed.width; ++w) in.z[w] = {z + t0 * packed.rank, packed.rank, 1};
        run_tile_block(packed, in, begin, end, out);
      }
    });
  }
}

// dx[t] = sum_w K[t + w, w] dy[t + w] over the rows t + w of the segment that reach back to t.
// Rows before the segment (place < 0) are its halo.
template <class T>
class InputGradient {
 public:
  InputGradient(const ConvCall& call, const PackedFilters<T>& packed, const OutsideRows<T>& outside,
                const T* z, Tensor dx, Tensor dhalo, Tensor dy)
      : call_(call),
        packed_(packed),
        outside_(outside),
        z_(z),
        dx_(dx),
        dhalo_(dhalo),
        dy_(dy),
        reach_(call.rows.reach.data<std::int32_t>()) {}

  // The boundary's call sets the halo's rows, the interior's those of the segment.
  void run() const {
    const bool halo = !dhalo_.empty() && call_.rows.part != ConvPart::interior;
    const std::int64_t first = halo ? 1 - packed_.width : 0;
    for (std::int64_t begin = 0; begin < packed_.padded; begin += packed_.block()) {
      const std::int64_t end = std::min(begin + packed_.block(), packed_.padded);
      for (std::int64_t segment = 0; segment < call_.rows.segments; ++segment) {
        for (std::int64_t place = first; place < end_place(); place += kRows) {
          run_rows(segment, place, begin, end);
        }
      }
    }
  }

 private:
  std::int64_t end_place() const {
    return call_.rows.part == ConvPart::boundary ? 0 : call_.rows.length;
  }

  void run_rows(std::int64_t segment, std::int64_t place, std::int64_t begin,
                std::int64_t end) const {
    TileInputs<T> in;
    T* out[kRows];
    const std::int64_t row = segment * call_.rows.length + place;
    for (int i = 0; i < kRows; ++i) {
      out[i] = target(segment, place + i);
      for (int w = 0; w < packed_.width; ++w) in.x[w][i] = gradient(segment, place + i, w);
    }
    for (int w = 0; w < packed_.width; ++w) {
      in.z[w] = {z_ + (row + w) * packed_.rank, packed_.rank, 1};
    }
    run_tile_block(packed_, in, begin, end, out);
  }

  T* target(std::int64_t segment, std::int64_t place) const {
    if (place >= end_place()) return outside_.nowhere;
    if (place >= 0) return dx_.row<T>(segment * call_.rows.length + place);
    return dhalo_.row<T>((segment + 1) * (packed_.width - 1) + place);
  }

  // The row of dy whose tap w reads `place`.
  T* gradient(std::int64_t segment, std::int64_t place, int w) const {
    const std::int64_t reader = place + w;
    const std::int64_t row = segment * call_.rows.length + reader;
    const bool reads = reader >= 0 && reader < call_.rows.length && reach_[row] >= w;
    return reads ? dy_.row<T>(row) : outside_.zeros;
  }

  const ConvCall& call_;
  const PackedFilters<T>& packed_;
  const OutsideRows<T>& outside_;
  const T* z_;
  Tensor dx_, dhalo_, dy_;
  const std::int32_t* reach_;
};

// u for the product with respect to z: by chunk of channels [W * kChunk][Rp].
template <class T>
T* transpose_u(const ConvCall& call, const PackedFilters<T>& packed, std::int64_t padded_rank) {
  T* out = call.scratch.take<T>(packed.width * packed.padded * padded_rank);
  T* row = out;
  for (std::int64_t d0 = 0; d0 < packed.padded; d0 += kChunk<T>) {
    for (int w = 0; w < packed.width; ++w) {
      for (std::int64_t d = d0; d < d0 + kChunk<T>; ++d, row += padded_rank) {
        for (std::int64_t r = 0; r < packed.rank; ++r) {
          row[r] = packed.u[(w * packed.rank + r) * packed.padded + d];
        }
        std::fill(row + packed.rank, row + padded_rank, T(0));
      }
    }
  }
  return out;
}

// products[i][w][chunk] = dy[t0 + i] x[t0 + i - w] over a chunk of channels.
template <class T>
void make_products(T* products, const Tensor& dy, const TapRows<T>& sources, T* zeros, int width,
                   std::int64_t t0, std::int64_t d0) {
  const std::int64_t channels = dy.cols();
  for (std::int64_t i = 0; i < kTileRows; ++i) {
    const bool valid = t0 + i < dy.rows();
    const T* gradient = valid ? dy.row<T>(t0 + i) : zeros;
    for (int w = 0; w < width; ++w) {
      const T* source = valid ? sources.at(t0 + i, w) : zeros;
#pragma GCC unroll 8
      for (int j = 0; j < kTileVectors; ++j, products += kLanes<T>) {
        const std::int64_t d = d0 + j * kLanes<T>;
        store<T>(products,
                 load_part(gradient + d, channels - d) * load_part(source + d, channels - d));
      }
    }
  }
}

// dz[t, r] = sum_{w, d} dy[t, d] x[t - w, d] u[r, w, d].
template <class T>
void backward_generated(const ConvCall& call, const PackedFilters<T>& packed,
                        const OutsideRows<T>& outside, Tensor dgenerated, Tensor dy, Tensor x) {
  const std::int64_t padded_rank = round_up(packed.rank, kLanes<T>);
  const std::int64_t depth = packed.width * kChunk<T>;
  const T* u = transpose_u(call, packed, padded_rank);
  T* products = call.scratch.take<T>(kTileRows * depth);
  T* dz = call.scratch.take<T>(kTileRows * padded_rank);
  const TapRows<T> sources(x, call.rows.halo, call.rows, packed.width, outside.zeros);
  for (std::int64_t t0 = 0; t0 < x.rows(); t0 += kTileRows) {
    std::fill(dz, dz + kTileRows * padded_rank, T(0));
    for (std::int64_t d0 = 0; d0 < packed.padded; d0 += kChunk<T>) {
      make_products(products, dy, sources, outside.zeros, packed.width, t0, d0);
      small_matmul<T>(dz, padded_rank, {products, depth, 1}, u + d0 * packed.width * padded_rank,
                      padded_rank, kTileRows, padded_rank, depth, Accumulate::yes);
    }
    const std::int64_t count = std::min<std::int64_t>(kTileRows, x.rows() - t0);
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(dz + i * padded_rank, packed.rank, dgenerated.row<T>(t0 + i));
    }
  }
}

template <class T>
void backward_input(const ConvCall& call, Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy,
                    Tensor x) {
  call.scratch.reset();
  const PackedFilters<T> packed(call);
  const OutsideRows<T> outside(call.scratch, packed.padded);
  // A tile reads the filters of rows before the first (for a halo) and after the last one.
  const std::int64_t before = (packed.width - 1) * packed.rank;
  T* z = call.scratch.take<T>(before + (x.rows() + kRows + packed.width) * packed.rank);
  std::fill(z, z + before + (x.rows() + kRows + packed.width) * packed.rank, T(0));
  for (std::int64_t t = 0; t < x.rows(); ++t) {
    std::copy_n(call.filters.generated.row<T>(t), packed.rank, z + before + t * packed.rank);
  }
  InputGradient<T>(call, packed, outside, z + before, dx, dhalo, dy).run();
  if (call.rows.part == ConvPart::boundary) return;
  backward_generated(call, packed, outside, dgenerated, dy, x);
}

constexpr int kRankTile = 8;

// Adds sum over rows of z[t, r] dy[t, d] x[t - w, d] to du for 8 ranks and a chunk of channels.
template <class T, bool Whole>
void backward_u_tile(T* const* du, std::int64_t ranks, const T* z, std::int64_t z_stride,
                     T* const* dy, T* const* source, std::int64_t rows, std::int64_t d0,
                     std::int64_t channels) {
  Vec<T> sum[kRankTile][kTileVectors] = {};
  for (std::int64_t t = 0; t < rows; ++t) {
    Vec<T> product[kTileVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kTileVectors; ++j) {
      const std::int64_t d = d0 + j * kLanes<T>;
      product[j] =
          load_some<Whole>(dy[t] + d, channels - d) * load_some<Whole>(source[t] + d, channels - d);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRankTile; ++r) {
#pragma GCC unroll 8
      for (int j = 0; j < kTileVectors; ++j) sum[r][j] += z[t * z_stride + r] * product[j];
    }
  }
  for (std::int64_t r = 0; r < ranks; ++r) {
    for (int j = 0; j < kTileVectors; ++j) {
      const std::int64_t d = d0 + j * kLanes<T>;
      const Vec<T> old = load_part<T>(du[r] + d, channels - d);
      store_part<T>(du[r] + d, old + sum[r][j], channels - d);
    }
  }
}

template <class T>
void backward_u(const ConvCall& call, Tensor du, Tensor dy, Tensor x) {
  constexpr std::int64_t kBlock = 64;  // rows summed before they are added to the gradient
  const std::int64_t channels = x.cols();
  const std::int64_t rank = call.shape.filter_rank;
  const std::int64_t padded_rank = round_up(rank, kRankTile);
  const int width = call.shape.width;
  call.scratch.reset();
  const OutsideRows<T> outside(call.scratch, channels);
  const T* z = copy_z<T>(call, x.rows(), padded_rank, 0);
  const TapRows<T> sources(x, call.rows.halo, call.rows, width, outside.zeros);
  T* gradient[kBlock];
  T* source[kMaxConvWidth][kBlock];
  T* target[kRankTile];
  for (std::int64_t t0 = 0; t0 < x.rows(); t0 += kBlock) {
    const std::int64_t count = std::min(kBlock, x.rows() - t0);
    for (std::int64_t i = 0; i < count; ++i) {
      gradient[i] = dy.row<T>(t0 + i);
      for (int w = 0; w < width; ++w) source[w][i] = sources.at(t0 + i, w);
    }
    for (std::int64_t d0 = 0; d0 < channels; d0 += kChunk<T>) {
      const bool whole = d0 + kChunk<T> <= channels;
      const auto run = whole ? backward_u_tile<T, true> : backward_u_tile<T, false>;
      for (int w = 0; w < width; ++w) {
        for (std::int64_t r0 = 0; r0 < rank; r0 += kRankTile) {
          const std::int64_t ranks = std::min<std::int64_t>(kRankTile, rank - r0);
          for (std::int64_t r = 0; r < ranks; ++r) target[r] = du.row<T>((r0 + r) * width + w);
          run(target, ranks, z + t0 * padded_rank + r0, padded_rank, gradient, source[w], count, d0,
              channels);
        }
      }
    }
  }
}

}  // namespace

void lowrank_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  dispatch_real(x.dtype(), [&]<class T>() { forward<T>(call, y, x); });
}

void lowrank_conv_backward_input(const ConvCall& call, Tensor dx, Tensor dgenerated, Tensor dhalo,
                                 Tensor dy, Tensor x) {
  dispatch_real(x.dtype(),
                [&]<class T>() { backward_input<T>(call, dx, dgenerated, dhalo, dy, x); });
}

void lowrank_conv_backward_u(const ConvCall& call, Tensor du, Tensor dy, Tensor x) {
  dispatch_real(x.dtype(), [&]<class T>() { backward_u<T>(call, du, dy, x); });
}

}  // namespace convoy::cpu
