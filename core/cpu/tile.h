// The micro-kernel that matmul, attention and the dynamic convolution share: a tile of rows times a
// panel of contiguous columns, kept in registers along the whole depth.
#pragma once

#include "core/backend.h"
#include "core/cpu/simd.h"

namespace convoy::cpu {

// A matrix read one element at a time (each element is broadcast): any strides.
template <class T>
struct Broadcast {
  const T* data;
  std::int64_t row_stride, col_stride;

  const T* at(std::int64_t row) const { return data + row * row_stride; }
};

// acc[i][j] += sum over p of a[i, p] * b[p, vector j], in the order of p.
template <class T, int Rows, int Vectors>
[[gnu::always_inline]] inline void multiply_tile(Vec<T> (&acc)[Rows][Vectors], Broadcast<T> a,
                                                 const T* b, std::int64_t b_stride,
                                                 std::int64_t depth) {
  const T* a_column = a.data;
  for (std::int64_t p = 0; p < depth; ++p) {
    Vec<T> panel[Vectors];
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) panel[j] = load(b + j * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const T scalar = a_column[i * a.row_stride];
#pragma GCC unroll 8
      for (int j = 0; j < Vectors; ++j) acc[i][j] += scalar * panel[j];
    }
    a_column += a.col_stride;
    b += b_stride;
  }
}

namespace detail {

template <class T, int Rows, int Vectors>
inline void tile_to_memory(T* c, std::int64_t c_stride, Broadcast<T> a, const T* b,
                           std::int64_t b_stride, std::int64_t depth, Accumulate accumulate) {
  Vec<T> acc[Rows][Vectors] = {};
  multiply_tile<T, Rows, Vectors>(acc, a, b, b_stride, depth);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) {
      T* target = c + i * c_stride + j * kLanes<T>;
      store<T>(target, accumulate == Accumulate::yes ? load(target) + acc[i][j] : acc[i][j]);
    }
  }
}

template <class T, int Vectors>
inline void column_panel(T* c, std::int64_t c_stride, Broadcast<T> a, const T* b,
                         std::int64_t b_stride, std::int64_t m, std::int64_t depth,
                         Accumulate accumulate) {
  std::int64_t i = 0;
  const auto from = [&](std::int64_t row) {
    return Broadcast<T>{a.at(row), a.row_stride, a.col_stride};
  };
  for (; i + kTileRows <= m; i += kTileRows) {
    tile_to_memory<T, kTileRows, Vectors>(c + i * c_stride, c_stride, from(i), b, b_stride, depth,
                                          accumulate);
  }
  for (; i + 4 <= m; i += 4) {
    tile_to_memory<T, 4, Vectors>(c + i * c_stride, c_stride, from(i), b, b_stride, depth,
                                  accumulate);
  }
  for (; i < m; ++i) {
    tile_to_memory<T, 1, Vectors>(c + i * c_stride, c_stride, from(i), b, b_stride, depth,
                                  accumulate);
  }
}

}  // namespace detail

// c [m, n] = a [m, depth] * b [depth, n], or +=. n is a multiple of the vector's lanes.
// The bits of an element depend on its row of a and its column of b alone.
template <class T>
void small_matmul(T* c, std::int64_t c_stride, Broadcast<T> a, const T* b, std::int64_t b_stride,
                  std::int64_t m, std::int64_t n, std::int64_t depth, Accumulate accumulate) {
  std::int64_t j = 0;
  for (; j + kTileVectors * kLanes<T> <= n; j += kTileVectors * kLanes<T>) {
    detail::column_panel<T, kTileVectors>(c + j, c_stride, a, b + j, b_stride, m, depth,
                                          accumulate);
  }
  for (; j < n; j += kLanes<T>) {
    detail::column_panel<T, 1>(c + j, c_stride, a, b + j, b_stride, m, depth, accumulate);
  }
}

}  // namespace convoy::cpu
