// The backward pass of causal attention: probabilities are made again from the log-sum-exp of the
// forward pass, tile by tile. Tiles are walked in a fixed order, so gradients are deterministic.
#include "core/cpu/attention_tiles.h"
#include "core/cpu/cpu_backend.h"
#include "core/scalar_math.h"

namespace convoy {
namespace cpu {
namespace {

template <class T>
struct BackwardScratch {
  T *queries, *keys, *keys_t, *values_t, *dout;  // inputs, padded
  T *dkeys, *dvalues;                            // summed over the query heads of a group
  T *probabilities, *dscores, *dqueries, *delta;

  BackwardScratch(Scratch& scratch, const Sizes& n)
      : queries(scratch.take<T>(n.length * n.padded_width)),
        keys(scratch.take<T>(n.padded_keys * n.padded_width)),
        keys_t(scratch.take<T>(n.width * n.padded_keys)),
        values_t(scratch.take<T>(n.width * n.padded_keys)),
        dout(scratch.take<T>(n.length * n.padded_width)),
        dkeys(scratch.take<T>(n.padded_keys * n.padded_width)),
        dvalues(scratch.take<T>(n.padded_keys * n.padded_width)),
        probabilities(scratch.take<T>(kQueryTile * kKeyTile)),
        dscores(scratch.take<T>(kQueryTile * kKeyTile)),
        dqueries(scratch.take<T>(kQueryTile * n.padded_width)),
        delta(scratch.take<T>(kQueryTile)) {}
};

template <class T>
void score_gradients(T* __restrict scores, T* __restrict dscores, std::int64_t columns,
                     T log_sum_exp, T delta) {
  for (std::int64_t j = 0; j < columns; ++j) {
    scores[j] = exponential(scores[j] - log_sum_exp);
    dscores[j] = scores[j] * (dscores[j] - delta);
  }
}

// Turns a row of scores into probabilities p, and one of dp into p (dp - delta).
template <class T>
void backward_row(T* scores, T* dscores, std::int64_t begin, std::int64_t end,
                  std::int64_t all_columns, T log_sum_exp, T delta) {
  std::int64_t columns = 0;
  if (begin < end) {
    columns = mask_row(scores, begin, end);
    score_gradients(scores, dscores, columns, log_sum_exp, delta);
  }
  std::fill(scores + columns, scores + all_columns, T(0));
  std::fill(dscores + columns, dscores + all_columns, T(0));
}

template <class T>
void backward_tile(const BackwardScratch<T>& s, HeadView<T> log_sum_exp,
                   const std::int32_t* document_start, const Sizes& n, const TileRange& range) {
  const std::int64_t pw = n.padded_width;
  const T* queries = s.queries + range.q0 * pw;
  const T* dout = s.dout + range.q0 * pw;
  small_matmul<T>(s.probabilities, kKeyTile, {queries, pw, 1}, s.keys_t + range.k0, n.padded_keys,
                  range.rows, range.columns, n.width, Accumulate::no);
  small_matmul<T>(s.dscores, kKeyTile, {dout, pw, 1}, s.values_t + range.k0, n.padded_keys,
                  range.rows, range.columns, n.width, Accumulate::no);
  for (std::int64_t i = 0; i < range.rows; ++i) {
    backward_row(s.probabilities + i * kKeyTile, s.dscores + i * kKeyTile,
                 range.first_column(document_start[range.q0 + i]), range.end_column(i),
                 range.columns, *log_sum_exp.row(range.q0 + i), s.delta[i]);
  }
  small_matmul<T>(s.dqueries, pw, {s.dscores, kKeyTile, 1}, s.keys + range.k0 * pw, pw, range.rows,
                  pw, range.keys, Accumulate::yes);
  small_matmul<T>(s.dkeys + range.k0 * pw, pw, {s.dscores, 1, kKeyTile}, queries, pw, range.keys,
                  pw, range.rows, Accumulate::yes);
  small_matmul<T>(s.dvalues + range.k0 * pw, pw, {s.probabilities, 1, kKeyTile}, dout, pw,
                  range.keys, pw, range.rows, Accumulate::yes);
}

template <class T>
void backward_queries(const BackwardScratch<T>& s, HeadView<T> dq, HeadView<T> out,
                      HeadView<T> log_sum_exp, const std::int32_t* document_start, const Sizes& n,
                      T scale, const QueryTile& q) {
  for (std::int64_t i = 0; i < q.rows; ++i) {
    s.delta[i] = dot<T>(s.dout + (q.q0 + i) * n.padded_width, out.row(q.q0 + i), n.width);
  }
  std::fill(s.dqueries, s.dqueries + kQueryTile * n.padded_width, T(0));
  for_each_key_tile<T>(document_start, q, [&](const TileRange& range) {
    backward_tile(s, log_sum_exp, document_start, n, range);
  });
  copy_back<T>({dq.row(q.q0), dq.stride}, s.dqueries, q.rows, n, scale);
}

}  // namespace
}  // namespace cpu

void CpuBackend::attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q,
                                    Tensor k, Tensor v, Tensor out, Tensor log_sum_exp,
                                    Tensor document_start, const AttentionShape& shape) {
  using namespace cpu;
  dispatch_real(q.dtype(), [&]<class T>() {
    const Sizes n = sizes_of<T>(shape);
    const T scale = score_scale<T>(shape);
    const std::int64_t group = shape.query_heads / shape.kv_heads;
    scratch_.reset();
    const BackwardScratch<T> s(scratch_, n);
    for (std::int64_t b = 0; b < shape.sequences; ++b) {
      const std::int64_t row = b * n.length, key_row = b * n.keys;
      for (std::int64_t head = 0; head < shape.query_heads; ++head) {
        const std::int64_t kv_column = head / group * n.width;
        if (head % group == 0) {
          copy_columns(s.keys_t, head_of<T>(k, key_row, kv_column), n);
          copy_columns(s.values_t, head_of<T>(v, key_row, kv_column), n);
          copy_rows(s.keys, head_of<T>(k, key_row, kv_column), n.keys, n.padded_keys, n, T(1));
          std::fill(s.dkeys, s.dkeys + n.padded_keys * n.padded_width, T(0));
          std::fill(s.dvalues, s.dvalues + n.padded_keys * n.padded_width, T(0));
        }
        copy_rows(s.queries, head_of<T>(q, row, head * n.width), n.length, n.length, n, scale);
        copy_rows(s.dout, head_of<T>(dout, row, head * n.width), n.length, n.length, n, T(1));
        for_each_query_tile(shape, [&](const QueryTile& tile) {
          backward_queries(s, head_of<T>(dq, row, head * n.width),
                           head_of<T>(out, row, head * n.width), head_of<T>(log_sum_exp, row, head),
                           document_start.data<std::int32_t>() + row, n, scale, tile);
        });
        if (head % group == group - 1) {
          copy_back<T>(head_of<T>(dk, key_row, kv_column), s.dkeys, n.keys, n, T(1));
          copy_back<T>(head_of<T>(dv, key_row, kv_column), s.dvalues, n.keys, n, T(1));
        }
      }
    }
  });
}

}  // namespace convoy
