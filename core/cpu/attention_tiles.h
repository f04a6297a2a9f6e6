// What the two passes of attention share: one head of one sequence copied into padded working
// memory, so that every product runs through the same micro-kernel, and the tiles of queries and
// keys. Rows of different sequences never meet, so bits do not depend on batching.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/backend.h"
#include "core/cpu/scratch.h"
#include "core/cpu/tile.h"

namespace convoy::cpu {

constexpr std::int64_t kQueryTile = 2 * kTileRows;
constexpr std::int64_t kKeyTile = 128;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Columns of a score tile come in whole panels of the micro-kernel.
template <class T>
constexpr std::int64_t kPanel = kTileVectors* kLanes<T>;

// Rows [T, K] of one head inside a wider matrix.
template <class T>
struct HeadView {
  T* data;
  std::int64_t stride;

  T* row(std::int64_t i) const { return data + i * stride; }
};

template <class T>
HeadView<T> head_of(const Tensor& tensor, std::int64_t first_row, std::int64_t column) {
  return {tensor.row<T>(first_row) + column, tensor.row_stride()};
}

struct Sizes {
  std::int64_t length;        // queries of a sequence
  std::int64_t keys;          // keys of a sequence
  std::int64_t width;         // K
  std::int64_t padded_keys;   // up to whole panels
  std::int64_t padded_width;  // K up to whole vectors
};

template <class T>
Sizes sizes_of(const AttentionShape& shape) {
  return {shape.length, shape.key_length, shape.head_width, round_up(shape.key_length, kPanel<T>),
          round_up(shape.head_width, kLanes<T>)};
}

template <class T>
T score_scale(const AttentionShape& shape) {
  return static_cast<T>(1.0 / std::sqrt(static_cast<double>(shape.head_width)));
}

// [rows, K] as rows [padded, padded_width], times `scale`, padded with zeros.
template <class T>
void copy_rows(T* target, HeadView<T> source, std::int64_t rows, std::int64_t padded,
               const Sizes& n, T scale) {
  for (std::int64_t i = 0; i < padded; ++i) {
    T* row = target + i * n.padded_width;
    const std::int64_t valid = i < rows ? n.width : 0;
    for (std::int64_t j = 0; j < valid; ++j) row[j] = source.row(i)[j] * scale;
    std::fill(row + valid, row + n.padded_width, T(0));
  }
}

// Keys [keys, K] transposed into [K, padded_keys], padded with zeros.
template <class T>
void copy_columns(T* target, HeadView<T> source, const Sizes& n) {
  for (std::int64_t i = 0; i < n.keys; ++i) {
    const T* row = source.row(i);
    for (std::int64_t j = 0; j < n.width; ++j) target[j * n.padded_keys + i] = row[j];
  }
  for (std::int64_t j = 0; j < n.width; ++j) {
    T* row = target + j * n.padded_keys;
    std::fill(row + n.keys, row + n.padded_keys, T(0));
  }
}

template <class T>
void copy_back(HeadView<T> target, const T* source, std::int64_t rows, const Sizes& n, T scale) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < n.width; ++j) {
      target.row(i)[j] = source[i * n.padded_width + j] * scale;
    }
  }
}

// A tile of queries: rows [q0, q0 + rows) at positions from `position`.
struct QueryTile {
  std::int64_t q0, rows, position;
};

// Calls function(QueryTile) for all queries of a sequence; a tile lies in one run.
template <class Function>
void for_each_query_tile(const AttentionShape& shape, Function function) {
  const std::int64_t length = shape.length / shape.runs;
  for (int run = 0; run < shape.runs; ++run) {
    const std::int64_t begin = shape.run_begin[static_cast<std::size_t>(run)];
    for (std::int64_t i = 0; i < length; i += kQueryTile) {
      function(QueryTile{run * length + i, std::min(kQueryTile, length - i), begin + i});
    }
  }
}

// A tile of queries against one of keys [k0, k0 + keys); no query of the tile sees a key past the
// last one. Scores have `columns` columns, whole panels, kKeyTile apart.
struct TileRange {
  std::int64_t q0, rows, position, k0, keys, columns;

  // The keys that row i sees, as columns of the tile.
  std::int64_t first_column(std::int64_t document_start) const {
    return std::max<std::int64_t>(document_start - k0, 0);
  }
  std::int64_t end_column(std::int64_t i) const { return std::min(position + i + 1 - k0, keys); }
};

// Calls function(range) for the tiles of keys that a tile of queries sees. Document starts never
// decrease, so the first query's is the earliest.
template <class T, class Function>
void for_each_key_tile(const std::int32_t* document_start, const QueryTile& q, Function function) {
  const std::int64_t first = document_start[q.q0] / kKeyTile * kKeyTile;
  const std::int64_t end = q.position + q.rows;
  for (std::int64_t k0 = first; k0 < end; k0 += kKeyTile) {
    const std::int64_t keys = std::min(kKeyTile, end - k0);
    function(TileRange{q.q0, q.rows, q.position, k0, keys, round_up(keys, kPanel<T>)});
  }
}

// Puts what may not be seen so low that its exponential is 0; returns the columns, whole vectors,
// after which nothing is seen.
template <class T>
std::int64_t mask_row(T* scores, std::int64_t begin, std::int64_t end) {
  constexpr T kHidden = T(-1e30);
  const std::int64_t columns = round_up(end, kLanes<T>);
  std::fill(scores, scores + begin, kHidden);
  std::fill(scores + end, scores + columns, kHidden);
  return columns;
}

}  // namespace convoy::cpu
