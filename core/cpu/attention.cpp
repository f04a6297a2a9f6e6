// Causal attention with an online softmax over tiles of keys (Dao et al., arXiv 2205.14135): the
// T x T scores are never stored. Each head is copied into padded working memory once, so that every
// product runs through the same micro-kernel; keys and values are copied once per group of query
// heads that share them. Rows of different sequences never meet, so bits do not depend on batching.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/cpu/cpu_backend.h"
#include "core/cpu/tile.h"
#include "core/scalar_math.h"

namespace convoy {
namespace {

using cpu::Broadcast;
using cpu::kLanes;
using cpu::Scratch;
using cpu::small_matmul;

constexpr std::int64_t kQueryTile = 48;
constexpr std::int64_t kKeyTile = 64;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// One head of one sequence: rows [T, K] inside a wider matrix.
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
  std::int64_t length;         // T
  std::int64_t width;          // K
  std::int64_t padded_length;  // T up to whole key tiles
  std::int64_t padded_width;   // K up to whole vectors
};

template <class T>
Sizes sizes_of(const AttentionShape& shape) {
  return {shape.length, shape.head_width, round_up(shape.length, kKeyTile),
          round_up(shape.head_width, kLanes<T>)};
}

// [T, K] as rows [padded_length, padded_width], times `scale`, padded with zeros.
template <class T>
void copy_rows(T* target, HeadView<T> source, const Sizes& n, T scale) {
  for (std::int64_t i = 0; i < n.padded_length; ++i) {
    T* row = target + i * n.padded_width;
    const std::int64_t valid = i < n.length ? n.width : 0;
    for (std::int64_t j = 0; j < valid; ++j) row[j] = source.row(i)[j] * scale;
    std::fill(row + valid, row + n.padded_width, T(0));
  }
}

// [T, K] transposed into [K, padded_length], padded with zeros.
template <class T>
void copy_columns(T* target, HeadView<T> source, const Sizes& n) {
  for (std::int64_t j = 0; j < n.width; ++j) {
    T* row = target + j * n.padded_length;
    for (std::int64_t i = 0; i < n.length; ++i) row[i] = source.row(i)[j];
    std::fill(row + n.length, row + n.padded_length, T(0));
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

// Which keys of a tile a query may see: [begin, end) within the tile.
struct Span {
  std::int64_t begin, end;
  bool empty() const { return begin >= end; }
};

Span visible(std::int64_t query, std::int64_t document_start, std::int64_t first_key) {
  return {std::max<std::int64_t>(document_start - first_key, 0),
          std::min(query + 1 - first_key, kKeyTile)};
}

// Puts what may not be seen so low that its exponential is 0.
template <class T>
void mask_row(T* scores, Span span) {
  constexpr T kHidden = T(-1e30);
  std::fill(scores, scores + span.begin, kHidden);
  std::fill(scores + span.end, scores + kKeyTile, kHidden);
}

// The first tile of keys that any query of [first, last] sees; document starts never decrease.
std::int64_t first_key_tile(const std::int32_t* document_start, std::int64_t first_query) {
  return document_start[first_query] / kKeyTile * kKeyTile;
}

template <class T>
T fold_max(const T* x) {
  cpu::Vec<T> best = cpu::load(x);
  for (std::int64_t j = kLanes<T>; j < kKeyTile; j += kLanes<T>) {
    best = cpu::larger<T>(best, cpu::load(x + j));
  }
  return cpu::max_lanes<T>(best);
}

template <class T>
T fold_sum(const T* x) {
  cpu::Vec<T> sum = cpu::load(x);
  for (std::int64_t j = kLanes<T>; j < kKeyTile; j += kLanes<T>) sum += cpu::load(x + j);
  return cpu::sum_lanes<T>(sum);
}

// The running softmax of a tile of queries.
template <class T>
struct RunningSoftmax {
  T maximum[kQueryTile];
  T sum[kQueryTile];

  RunningSoftmax() {
    std::fill(maximum, maximum + kQueryTile, -std::numeric_limits<T>::infinity());
    std::fill(sum, sum + kQueryTile, T(0));
  }

  // Turns one row of scores into probabilities relative to the new maximum and rescales `out`.
  void absorb(std::int64_t i, T* scores, T* out, std::int64_t width, Span span) {
    if (span.empty()) {
      std::fill(scores, scores + kKeyTile, T(0));
      return;
    }
    mask_row(scores, span);
    const T top = std::max(maximum[i], fold_max(scores));
    const T rescale = sum[i] == T(0) ? T(0) : exponential(maximum[i] - top);
    for (std::int64_t j = 0; j < kKeyTile; ++j) scores[j] = exponential(scores[j] - top);
    sum[i] = sum[i] * rescale + fold_sum(scores);
    maximum[i] = top;
    for (std::int64_t j = 0; j < width; ++j) out[j] *= rescale;
  }
};

template <class T>
struct ForwardScratch {
  T *queries, *keys_t, *values, *scores, *out;

  ForwardScratch(Scratch& scratch, const Sizes& n)
      : queries(scratch.take<T>(n.padded_length * n.padded_width)),
        keys_t(scratch.take<T>(n.width * n.padded_length)),
        values(scratch.take<T>(n.padded_length * n.padded_width)),
        scores(scratch.take<T>(kQueryTile * kKeyTile)),
        out(scratch.take<T>(kQueryTile * n.padded_width)) {}
};

template <class T>
void forward_head(const ForwardScratch<T>& s, HeadView<T> out, HeadView<T> log_sum_exp,
                  const std::int32_t* document_start, const Sizes& n) {
  for (std::int64_t q0 = 0; q0 < n.length; q0 += kQueryTile) {
    const std::int64_t count = std::min(kQueryTile, n.length - q0);
    RunningSoftmax<T> softmax;
    std::fill(s.out, s.out + kQueryTile * n.padded_width, T(0));
    for (std::int64_t k0 = first_key_tile(document_start, q0); k0 < q0 + count; k0 += kKeyTile) {
      small_matmul<T>(s.scores, kKeyTile, {s.queries + q0 * n.padded_width, n.padded_width, 1},
                      s.keys_t + k0, n.padded_length, count, kKeyTile, n.width, Accumulate::no);
      for (std::int64_t i = 0; i < count; ++i) {
        softmax.absorb(i, s.scores + i * kKeyTile, s.out + i * n.padded_width, n.padded_width,
                       visible(q0 + i, document_start[q0 + i], k0));
      }
      small_matmul<T>(s.out, n.padded_width, {s.scores, kKeyTile, 1},
                      s.values + k0 * n.padded_width, n.padded_width, count, n.padded_width,
                      kKeyTile, Accumulate::yes);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const T inverse = T(1) / softmax.sum[i];
      for (std::int64_t j = 0; j < n.width; ++j) {
        out.row(q0 + i)[j] = s.out[i * n.padded_width + j] * inverse;
      }
      *log_sum_exp.row(q0 + i) = softmax.maximum[i] + std::log(softmax.sum[i]);
    }
  }
}

template <class T>
struct BackwardScratch {
  T *queries, *keys, *keys_t, *values_t, *dout;  // inputs, padded
  T *dkeys, *dvalues;                            // summed over the query heads of a group
  T *probabilities, *dscores, *dqueries, *delta;

  BackwardScratch(Scratch& scratch, const Sizes& n)
      : queries(scratch.take<T>(n.padded_length * n.padded_width)),
        keys(scratch.take<T>(n.padded_length * n.padded_width)),
        keys_t(scratch.take<T>(n.width * n.padded_length)),
        values_t(scratch.take<T>(n.width * n.padded_length)),
        dout(scratch.take<T>(n.padded_length * n.padded_width)),
        dkeys(scratch.take<T>(n.padded_length * n.padded_width)),
        dvalues(scratch.take<T>(n.padded_length * n.padded_width)),
        probabilities(scratch.take<T>(kQueryTile * kKeyTile)),
        dscores(scratch.take<T>(kQueryTile * kKeyTile)),
        dqueries(scratch.take<T>(kQueryTile * n.padded_width)),
        delta(scratch.take<T>(kQueryTile)) {}
};

template <class T>
void probability_row(T* __restrict scores, T* __restrict dscores, T log_sum_exp, T delta) {
  for (std::int64_t j = 0; j < kKeyTile; ++j) {
    scores[j] = exponential(scores[j] - log_sum_exp);
    dscores[j] = scores[j] * (dscores[j] - delta);
  }
}

// Turns a row of scores into probabilities p and dp into p (dp - delta).
template <class T>
void backward_row(T* scores, T* dscores, Span span, T log_sum_exp, T delta) {
  if (span.empty()) {
    std::fill(scores, scores + kKeyTile, T(0));
    std::fill(dscores, dscores + kKeyTile, T(0));
    return;
  }
  mask_row(scores, span);
  probability_row(scores, dscores, log_sum_exp, delta);
}

template <class T>
void backward_key_tile(const BackwardScratch<T>& s, HeadView<T> log_sum_exp,
                       const std::int32_t* document_start, const Sizes& n, std::int64_t q0,
                       std::int64_t count, std::int64_t k0) {
  const std::int64_t pw = n.padded_width;
  small_matmul<T>(s.probabilities, kKeyTile, {s.queries + q0 * pw, pw, 1}, s.keys_t + k0,
                  n.padded_length, count, kKeyTile, n.width, Accumulate::no);
  small_matmul<T>(s.dscores, kKeyTile, {s.dout + q0 * pw, pw, 1}, s.values_t + k0, n.padded_length,
                  count, kKeyTile, n.width, Accumulate::no);
  for (std::int64_t i = 0; i < count; ++i) {
    backward_row(s.probabilities + i * kKeyTile, s.dscores + i * kKeyTile,
                 visible(q0 + i, document_start[q0 + i], k0), *log_sum_exp.row(q0 + i), s.delta[i]);
  }
  small_matmul<T>(s.dqueries, pw, {s.dscores, kKeyTile, 1}, s.keys + k0 * pw, pw, count, pw,
                  kKeyTile, Accumulate::yes);
  small_matmul<T>(s.dkeys + k0 * pw, pw, {s.dscores, 1, kKeyTile}, s.queries + q0 * pw, pw,
                  kKeyTile, pw, count, Accumulate::yes);
  small_matmul<T>(s.dvalues + k0 * pw, pw, {s.probabilities, 1, kKeyTile}, s.dout + q0 * pw, pw,
                  kKeyTile, pw, count, Accumulate::yes);
}

template <class T>
void backward_head(const BackwardScratch<T>& s, HeadView<T> dq, HeadView<T> out,
                   HeadView<T> log_sum_exp, const std::int32_t* document_start, const Sizes& n,
                   T scale) {
  for (std::int64_t q0 = 0; q0 < n.length; q0 += kQueryTile) {
    const std::int64_t count = std::min(kQueryTile, n.length - q0);
    for (std::int64_t i = 0; i < count; ++i) {
      s.delta[i] = cpu::dot<T>(s.dout + (q0 + i) * n.padded_width, out.row(q0 + i), n.width);
    }
    std::fill(s.dqueries, s.dqueries + kQueryTile * n.padded_width, T(0));
    for (std::int64_t k0 = first_key_tile(document_start, q0); k0 < q0 + count; k0 += kKeyTile) {
      backward_key_tile(s, log_sum_exp, document_start, n, q0, count, k0);
    }
    copy_back<T>({dq.row(q0), dq.stride}, s.dqueries, count, n, scale);
  }
}

template <class T>
T score_scale(const AttentionShape& shape) {
  return static_cast<T>(1.0 / std::sqrt(static_cast<double>(shape.head_width)));
}

}  // namespace

void CpuBackend::attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                                   Tensor document_start, const AttentionShape& shape) {
  dispatch_real(q.dtype(), [&]<class T>() {
    const Sizes n = sizes_of<T>(shape);
    const std::int64_t group = shape.query_heads / shape.kv_heads;
    scratch_.reset();
    const ForwardScratch<T> s(scratch_, n);
    for (std::int64_t b = 0; b < shape.sequences; ++b) {
      const std::int64_t row = b * n.length;
      for (std::int64_t head = 0; head < shape.query_heads; ++head) {
        if (head % group == 0) {
          const std::int64_t column = head / group * n.width;
          copy_columns(s.keys_t, head_of<T>(k, row, column), n);
          copy_rows(s.values, head_of<T>(v, row, column), n, T(1));
        }
        copy_rows(s.queries, head_of<T>(q, row, head * n.width), n, score_scale<T>(shape));
        forward_head(s, head_of<T>(out, row, head * n.width), head_of<T>(log_sum_exp, row, head),
                     document_start.data<std::int32_t>() + row, n);
      }
    }
  });
}

void CpuBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q,
                                    Tensor k, Tensor v, Tensor out, Tensor log_sum_exp,
                                    Tensor document_start, const AttentionShape& shape) {
  dispatch_real(q.dtype(), [&]<class T>() {
    const Sizes n = sizes_of<T>(shape);
    const T scale = score_scale<T>(shape);
    const std::int64_t group = shape.query_heads / shape.kv_heads;
    scratch_.reset();
    const BackwardScratch<T> s(scratch_, n);
    for (std::int64_t b = 0; b < shape.sequences; ++b) {
      const std::int64_t row = b * n.length;
      for (std::int64_t head = 0; head < shape.query_heads; ++head) {
        const std::int64_t kv_column = head / group * n.width;
        if (head % group == 0) {
          copy_columns(s.keys_t, head_of<T>(k, row, kv_column), n);
          copy_columns(s.values_t, head_of<T>(v, row, kv_column), n);
          copy_rows(s.keys, head_of<T>(k, row, kv_column), n, T(1));
          std::fill(s.dkeys, s.dkeys + n.padded_length * n.padded_width, T(0));
          std::fill(s.dvalues, s.dvalues + n.padded_length * n.padded_width, T(0));
        }
        copy_rows(s.queries, head_of<T>(q, row, head * n.width), n, scale);
        copy_rows(s.dout, head_of<T>(dout, row, head * n.width), n, T(1));
        backward_head(s, head_of<T>(dq, row, head * n.width), head_of<T>(out, row, head * n.width),
                      head_of<T>(log_sum_exp, row, head), document_start.data<std::int32_t>() + row,
                      n, scale);
        if (head % group == group - 1) {
          copy_back<T>(head_of<T>(dk, row, kv_column), s.dkeys, n.length, n, T(1));
          copy_back<T>(head_of<T>(dv, row, kv_column), s.dvalues, n.length, n, T(1));
        }
      }
    }
  });
}

}  // namespace convoy
