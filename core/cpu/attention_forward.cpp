// Causal attention with an online softmax over tiles of keys (Dao et al., arXiv 2205.14135): the
// T x T scores are never stored.
#include <limits>

#include "core/cpu/attention_tiles.h"
#include "core/cpu/cpu_backend.h"
#include "core/scalar_math.h"

namespace convoy {
namespace cpu {
namespace {

template <class T>
T fold_max(const T* x, std::int64_t columns) {
  Vec<T> best = load(x);
  for (std::int64_t j = kLanes<T>; j < columns; j += kLanes<T>) best = larger<T>(best, load(x + j));
  return max_lanes<T>(best);
}

// Turns scores into exp(score - shift) and returns their sum.
template <class T>
T exponentials(T* __restrict scores, std::int64_t columns, T shift) {
  for (std::int64_t j = 0; j < columns; ++j) scores[j] = exponential(scores[j] - shift);
  Vec<T> sum{};
  for (std::int64_t j = 0; j < columns; j += kLanes<T>) sum += load(scores + j);
  return sum_lanes<T>(sum);
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

  // Turns row i of scores into probabilities relative to the new maximum and rescales `out`.
  void absorb(std::int64_t i, T* scores, T* out, std::int64_t width, const TileRange& range,
              std::int64_t document_start) {
    const std::int64_t begin = range.first_column(document_start);
    const std::int64_t end = range.end_column(i);
    if (begin >= end) {
      std::fill(scores, scores + range.columns, T(0));
      return;
    }
    const std::int64_t columns = mask_row(scores, begin, end);
    const T top = std::max(maximum[i], fold_max(scores, columns));
    const T added = exponentials(scores, columns, top);
    std::fill(scores + columns, scores + range.columns, T(0));
    if (sum[i] != T(0)) {
      const T rescale = exponential(maximum[i] - top);
      for (std::int64_t j = 0; j < width; ++j) out[j] *= rescale;
      sum[i] *= rescale;
    }
    sum[i] += added;
    maximum[i] = top;
  }
};

template <class T>
struct ForwardScratch {
  T *queries, *keys_t, *values, *scores, *out;

  ForwardScratch(Scratch& scratch, const Sizes& n)
      : queries(scratch.take<T>(n.length * n.padded_width)),
        keys_t(scratch.take<T>(n.width * n.padded_keys)),
        values(scratch.take<T>(n.padded_keys * n.padded_width)),
        scores(scratch.take<T>(kQueryTile * kKeyTile)),
        out(scratch.take<T>(kQueryTile * n.padded_width)) {}
};

template <class T>
void forward_tile(const ForwardScratch<T>& s, RunningSoftmax<T>& softmax,
                  const std::int32_t* document_start, const Sizes& n, const TileRange& range) {
  const std::int64_t pw = n.padded_width;
  small_matmul<T>(s.scores, kKeyTile, {s.queries + range.q0 * pw, pw, 1}, s.keys_t + range.k0,
                  n.padded_keys, range.rows, range.columns, n.width, Accumulate::no);
  for (std::int64_t i = 0; i < range.rows; ++i) {
    softmax.absorb(i, s.scores + i * kKeyTile, s.out + i * pw, pw, range,
                   document_start[range.q0 + i]);
  }
  small_matmul<T>(s.out, pw, {s.scores, kKeyTile, 1}, s.values + range.k0 * pw, pw, range.rows, pw,
                  range.keys, Accumulate::yes);
}

template <class T>
void forward_queries(const ForwardScratch<T>& s, HeadView<T> out, HeadView<T> log_sum_exp,
                     const std::int32_t* document_start, const Sizes& n, const QueryTile& q) {
  RunningSoftmax<T> softmax;
  std::fill(s.out, s.out + kQueryTile * n.padded_width, T(0));
  for_each_key_tile<T>(document_start, q, [&](const TileRange& range) {
    forward_tile(s, softmax, document_start, n, range);
  });
  for (std::int64_t i = 0; i < q.rows; ++i) {
    const T inverse = T(1) / softmax.sum[i];
    for (std::int64_t j = 0; j < n.width; ++j) {
      out.row(q.q0 + i)[j] = s.out[i * n.padded_width + j] * inverse;
    }
    *log_sum_exp.row(q.q0 + i) = softmax.maximum[i] + std::log(softmax.sum[i]);
  }
}

}  // namespace
}  // namespace cpu

void CpuBackend::attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                                   Tensor document_start, const AttentionShape& shape) {
  using namespace cpu;
  dispatch_real(q.dtype(), [&]<class T>() {
    const Sizes n = sizes_of<T>(shape);
    const std::int64_t group = shape.query_heads / shape.kv_heads;
    scratch_.reset();
    const ForwardScratch<T> s(scratch_, n);
    for (std::int64_t b = 0; b < shape.sequences; ++b) {
      const std::int64_t row = b * n.length, key_row = b * n.keys;
      for (std::int64_t head = 0; head < shape.query_heads; ++head) {
        if (head % group == 0) {
          const std::int64_t column = head / group * n.width;
          copy_columns(s.keys_t, head_of<T>(k, key_row, column), n);
          copy_rows(s.values, head_of<T>(v, key_row, column), n.keys, n.padded_keys, n, T(1));
        }
        copy_rows(s.queries, head_of<T>(q, row, head * n.width), n.length, n.length, n,
                  score_scale<T>(shape));
        for_each_query_tile(shape, [&](const QueryTile& tile) {
          forward_queries(s, head_of<T>(out, row, head * n.width),
                          head_of<T>(log_sum_exp, row, head),
                          document_start.data<std::int32_t>() + row, n, tile);
        });
      }
    }
  });
}

}  // namespace convoy
