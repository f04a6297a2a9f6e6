#include "core/cpu/fixed_order_matmul.h"

#include <algorithm>

#include "core/cpu/tile.h"

namespace convoy::cpu {
namespace {

constexpr std::int64_t kDepthBlock = 256;   // fixed: it decides the order of the sum
constexpr std::int64_t kColumnBlock = 512;  // a packed block of b stays in the second-level cache

template <class T>
constexpr std::int64_t kPanel = kTileVectors* kLanes<T>;

// Columns [begin, begin + count) of op(b) at depths [p0, p0 + depth) as panels [depth][kPanel],
// padded with zeros.
template <class T>
void pack_columns(T* packed, Tensor b, bool transposed, std::int64_t begin, std::int64_t count,
                  std::int64_t p0, std::int64_t depth) {
  const T* data = b.data<T>();
  const std::int64_t stride = b.row_stride();
  for (std::int64_t panel = 0; panel < count; panel += kPanel<T>) {
    const std::int64_t valid = std::min(kPanel<T>, count - panel);
    for (std::int64_t p = 0; p < depth; ++p) {
      T* target = packed + panel * depth + p * kPanel<T>;
      for (std::int64_t j = 0; j < valid; ++j) {
        const std::int64_t column = begin + panel + j;
        target[j] = transposed ? data[column * stride + p0 + p] : data[(p0 + p) * stride + column];
      }
      std::fill(target + valid, target + kPanel<T>, T(0));
    }
  }
}

// Rows [begin, begin + count) of op(a) as [depth][kTileRows], padded with zeros.
template <class T>
void pack_rows(T* packed, Tensor a, bool transposed, std::int64_t begin, std::int64_t count,
               std::int64_t p0, std::int64_t depth) {
  const T* data = a.data<T>();
  const std::int64_t stride = a.row_stride();
  for (std::int64_t p = 0; p < depth; ++p) {
    T* target = packed + p * kTileRows;
    for (std::int64_t i = 0; i < count; ++i) {
      target[i] =
          transposed ? data[(p0 + p) * stride + begin + i] : data[(begin + i) * stride + p0 + p];
    }
    std::fill(target + count, target + kTileRows, T(0));
  }
}

template <class T>
void write_tile(T* c, std::int64_t c_stride, const Vec<T> (&acc)[kTileRows][kTileVectors],
                std::int64_t rows, std::int64_t columns, bool add) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < kTileVectors && j * kLanes<T> < columns; ++j) {
      const std::int64_t valid = columns - j * kLanes<T>;
      T* target = c + i * c_stride + j * kLanes<T>;
      store_part<T>(target, add ? load_part(target, valid) + acc[i][j] : acc[i][j], valid);
    }
  }
}

template <class T>
void multiply(Scratch& scratch, Tensor c, Tensor a, bool ta, Tensor b, bool tb, bool accumulate) {
  const std::int64_t m = c.rows();
  const std::int64_t n = c.cols();
  const std::int64_t k = ta ? a.rows() : a.cols();
  scratch.reset();
  T* columns = scratch.take<T>((kColumnBlock + kPanel<T>)*kDepthBlock);
  T* rows = scratch.take<T>(kTileRows * kDepthBlock);
  for (std::int64_t j0 = 0; j0 < n; j0 += kColumnBlock) {
    const std::int64_t width = std::min(kColumnBlock, n - j0);
    for (std::int64_t p0 = 0; p0 < std::max<std::int64_t>(k, 1); p0 += kDepthBlock) {
      const std::int64_t depth = std::min(kDepthBlock, k - p0);
      pack_columns(columns, b, tb, j0, width, p0, depth);
      for (std::int64_t i0 = 0; i0 < m; i0 += kTileRows) {
        const std::int64_t height = std::min<std::int64_t>(kTileRows, m - i0);
        pack_rows(rows, a, ta, i0, height, p0, depth);
        for (std::int64_t panel = 0; panel < width; panel += kPanel<T>) {
          Vec<T> acc[kTileRows][kTileVectors] = {};
          multiply_tile<T, kTileRows, kTileVectors>(acc, {rows, 1, kTileRows},
                                                    columns + panel * depth, kPanel<T>, depth);
          write_tile(c.row<T>(i0) + j0 + panel, c.row_stride(), acc, height, width - panel,
                     accumulate || p0 > 0);
        }
      }
    }
  }
}

}  // namespace

void fixed_order_matmul(Scratch& scratch, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                        Transpose transpose_b, Accumulate accumulate) {
  dispatch_real(c.dtype(), [&]<class T>() {
    multiply<T>(scratch, c, a, transpose_a == Transpose::yes, b, transpose_b == Transpose::yes,
                accumulate == Accumulate::yes);
  });
}

}  // namespace convoy::cpu
