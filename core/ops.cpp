#include "core/ops.h"

#include <algorithm>

#include "core/op_checks.h"

namespace convoy::ops {

void copy(const Context& context, Tensor destination, Tensor source) {
  expect_like(destination, source, "destination of copy");
  const Recorded recorded(context, "copy");
  context.backend.copy(destination, source);
}

void fill(const Context& context, Tensor destination, double value) {
  expect_device(context, {destination});
  const Recorded recorded(context, "fill");
  context.backend.fill(destination, value);
}

void add(const Context& context, Tensor y, Tensor a, Tensor b) {
  expect_device(context, {y, a, b});
  expect_like(a, y, "first addend");
  expect_like(b, y, "second addend");
  const Recorded recorded(context, "add");
  context.backend.add(y, a, b);
}

namespace {
void expect_matmul(const Context& context, const Tensor& c, const Tensor& a, Transpose transpose_a,
                   const Tensor& b, Transpose transpose_b) {
  expect_device(context, {c, a, b});
  const bool ta = transpose_a == Transpose::yes;
  const bool tb = transpose_b == Transpose::yes;
  const std::int64_t m = ta ? a.cols() : a.rows();
  const std::int64_t k = ta ? a.rows() : a.cols();
  const std::int64_t n = tb ? b.rows() : b.cols();
  const std::int64_t k_of_b = tb ? b.cols() : b.rows();
  CHECK(k == k_of_b && c.rows() == m && c.cols() == n, "matmul ", a.describe(), ta ? "^T" : "",
        " * ", b.describe(), tb ? "^T" : "", " -> ", c.describe());
  CHECK(a.dtype() == b.dtype(), "matmul of ", a.describe(), " and ", b.describe());
}
}  // namespace

void matmul(const Context& context, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
            Transpose transpose_b, Accumulate accumulate) {
  expect_matmul(context, c, a, transpose_a, b, transpose_b);
  const bool adds = accumulate == Accumulate::yes;  // a weight's gradient
  const Recorded recorded(context, adds ? "matmul_add" : "matmul");
  context.backend.matmul(c, a, transpose_a, b, transpose_b, accumulate);
}

void matmul_add(const Context& context, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                Transpose transpose_b, Tensor addend) {
  expect_matmul(context, c, a, transpose_a, b, transpose_b);
  expect_device(context, {addend});
  expect_like(addend, c, "what is added to a matmul");
  CHECK(addend.data() != c.data(), "a matmul's result lies where its addend does");
  context.backend.matmul_add(c, a, transpose_a, b, transpose_b, addend);
}

void rmsnorm_forward(const Context& context, Tensor y, Tensor rstd, Tensor x, Tensor weight,
                     double epsilon) {
  expect_device(context, {y, rstd, x, weight});
  expect_like(y, x, "output of rmsnorm");
  CHECK(x.cols() % weight.size() == 0, "rmsnorm of ", x.describe(), " over groups of ",
        weight.size());
  expect_shape(rstd, x.rows(), x.cols() / weight.size(), "rstd");
  const Recorded recorded(context, "rmsnorm_forward");
  context.backend.rmsnorm_forward(y, rstd, x, weight, epsilon);
}

void rmsnorm_backward_input(const Context& context, Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                            Tensor weight) {
  expect_device(context, {dx, dy, x, rstd, weight});
  expect_like(dx, x, "dx of rmsnorm");
  expect_like(dy, x, "dy of rmsnorm");
  expect_shape(rstd, x.rows(), x.cols() / weight.size(), "rstd");
  const Recorded recorded(context, "rmsnorm_backward_input");
  context.backend.rmsnorm_backward_input(dx, dy, x, rstd, weight);
}

void rmsnorm_backward_weight(const Context& context, Tensor dweight, Tensor dy, Tensor x,
                             Tensor rstd) {
  expect_device(context, {dweight, dy, x, rstd});
  expect_like(dy, x, "dy of rmsnorm");
  expect_shape(rstd, x.rows(), x.cols() / dweight.size(), "rstd");
  const Recorded recorded(context, "rmsnorm_backward_weight");
  context.backend.rmsnorm_backward_weight(dweight, dy, x, rstd);
}

void add_rmsnorm_forward(const Context& context, Tensor sum, Tensor y, Tensor rstd, Tensor a,
                         Tensor b, Tensor weight, double epsilon) {
  expect_device(context, {sum, y, rstd, a, b, weight});
  expect_like(a, sum, "first addend");
  expect_like(b, sum, "second addend");
  expect_like(y, sum, "output of rmsnorm");
  CHECK(sum.cols() % weight.size() == 0, "rmsnorm of ", sum.describe(), " over groups of ",
        weight.size());
  expect_shape(rstd, sum.rows(), sum.cols() / weight.size(), "rstd");
  const Recorded recorded(context, "add_rmsnorm_forward");
  context.backend.add_rmsnorm_forward(sum, y, rstd, a, b, weight, epsilon);
}

void rmsnorm_backward_input_add(const Context& context, Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                                Tensor weight, Tensor residual) {
  expect_device(context, {dx, dy, x, rstd, weight, residual});
  expect_like(dx, x, "dx of rmsnorm");
  expect_like(dy, x, "dy of rmsnorm");
  expect_like(residual, x, "residual");
  expect_shape(rstd, x.rows(), x.cols() / weight.size(), "rstd");
  const Recorded recorded(context, "rmsnorm_backward_input_add");
  context.backend.rmsnorm_backward_input_add(dx, dy, x, rstd, weight, residual);
}

void rmsnorm_backward(const Context& context, Tensor dx, Tensor dweight, Tensor dy, Tensor x,
                      Tensor rstd, Tensor weight, Tensor residual) {
  expect_device(context, {dx, dweight, dy, x, rstd, weight, residual});
  expect_like(dx, x, "dx of rmsnorm");
  expect_like(dy, x, "dy of rmsnorm");
  if (!residual.empty()) expect_like(residual, x, "residual");
  CHECK(dweight.size() == weight.size(), "dweight of rmsnorm is ", dweight.describe(), " for ",
        weight.describe());
  expect_shape(rstd, x.rows(), x.cols() / weight.size(), "rstd");
  context.backend.rmsnorm_backward(dx, dweight, dy, x, rstd, weight, residual);
}

void rope(const Context& context, Tensor x, Tensor positions, std::int64_t head_width, double theta,
          RopeDirection direction) {
  expect_device(context, {x, positions});
  expect_indices(positions, x.rows(), "positions");
  CHECK(head_width % 2 == 0 && x.cols() % head_width == 0, "rope over heads of ", head_width,
        " in ", x.describe());
  const Recorded recorded(context, "rope");
  context.backend.rope(x, positions, head_width, theta, direction);
}

namespace {
void expect_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& lse,
                      const Tensor& document_start, const AttentionShape& shape) {
  const std::int64_t rows = shape.sequences * shape.length;
  const std::int64_t keys = shape.sequences * shape.key_length;
  CHECK(shape.runs >= 1 && shape.runs <= 2 && shape.length % shape.runs == 0, shape.length,
        " queries are not ", shape.runs, " runs: attention takes 1 or 2 of equal length");
  for (int run = 0; run < shape.runs; ++run) {
    const std::int64_t begin = shape.run_begin[static_cast<std::size_t>(run)];
    CHECK(begin >= 0 && begin + shape.length / shape.runs <= shape.key_length, "queries from ",
          begin, " of ", shape.length / shape.runs, " rows look past ", shape.key_length, " keys");
  }
  CHECK(shape.kv_heads > 0 && shape.query_heads % shape.kv_heads == 0, shape.query_heads,
        " query heads cannot share ", shape.kv_heads, " key/value heads");
  expect_shape(q, rows, shape.query_heads * shape.head_width, "q");
  expect_shape(k, keys, shape.kv_heads * shape.head_width, "k");
  expect_shape(v, keys, shape.kv_heads * shape.head_width, "v");
  expect_shape(lse, rows, shape.query_heads, "log_sum_exp");
  expect_indices(document_start, rows, "document_start");
}
}  // namespace

void attention_forward(const Context& context, Tensor out, Tensor log_sum_exp, Tensor q, Tensor k,
                       Tensor v, Tensor document_start, const AttentionShape& shape) {
  expect_device(context, {out, log_sum_exp, q, k, v, document_start});
  expect_attention(q, k, v, log_sum_exp, document_start, shape);
  expect_like(out, q, "output of attention");
  const Recorded recorded(context, "attention_forward");
  context.backend.attention_forward(out, log_sum_exp, q, k, v, document_start, shape);
}

void attention_backward(const Context& context, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                        Tensor q, Tensor k, Tensor v, Tensor out, Tensor log_sum_exp,
                        Tensor document_start, const AttentionShape& shape) {
  expect_device(context, {dq, dk, dv, dout, q, k, v, out, log_sum_exp, document_start});
  expect_attention(q, k, v, log_sum_exp, document_start, shape);
  expect_like(dq, q, "dq");
  expect_like(dk, k, "dk");
  expect_like(dv, v, "dv");
  expect_like(dout, q, "dout");
  expect_like(out, q, "output of attention");
  const Recorded recorded(context, "attention_backward");
  context.backend.attention_backward(dq, dk, dv, dout, q, k, v, out, log_sum_exp, document_start,
                                     shape);
}

void swiglu_forward(const Context& context, Tensor y, Tensor gate, Tensor up) {
  expect_device(context, {y, gate, up});
  expect_like(gate, y, "gate");
  expect_like(up, y, "up");
  const Recorded recorded(context, "swiglu_forward");
  context.backend.swiglu_forward(y, gate, up);
}

void swiglu_backward(const Context& context, Tensor dgate, Tensor dup, Tensor dy, Tensor gate,
                     Tensor up) {
  expect_device(context, {dgate, dup, dy, gate, up});
  expect_like(dgate, gate, "dgate");
  expect_like(dup, gate, "dup");
  expect_like(dy, gate, "dy");
  expect_like(up, gate, "up");
  const Recorded recorded(context, "swiglu_backward");
  context.backend.swiglu_backward(dgate, dup, dy, gate, up);
}

namespace {
TableRange whole_where_not_given(TableRange range, const Tensor& table) {
  return range.total == 0 ? TableRange{0, table.rows()} : range;
}
}  // namespace

void embedding_forward(const Context& context, Tensor y, Tensor table, Tensor tokens,
                       TableRange range) {
  expect_device(context, {y, table, tokens});
  expect_indices(tokens, y.rows(), "tokens");
  expect_shape(y, tokens.size(), table.cols(), "output of embedding");
  const Recorded recorded(context, "embedding_forward");
  context.backend.embedding_forward(y, table, tokens, whole_where_not_given(range, table));
}

void embedding_backward(const Context& context, Tensor dtable, Tensor dy, Tensor tokens,
                        TableRange range) {
  expect_device(context, {dtable, dy, tokens});
  expect_indices(tokens, dy.rows(), "tokens");
  expect_shape(dy, tokens.size(), dtable.cols(), "dy of embedding");
  const Recorded recorded(context, "embedding_backward");
  context.backend.embedding_backward(dtable, dy, tokens, whole_where_not_given(range, dtable));
}

void softmax_statistics(const Context& context, Tensor statistics, Tensor logits, Tensor targets,
                        std::int64_t first_class) {
  expect_device(context, {statistics, logits, targets});
  expect_indices(targets, logits.rows(), "targets");
  expect_shape(statistics, logits.rows(), 3, "softmax statistics");
  const Recorded recorded(context, "softmax_statistics");
  context.backend.softmax_statistics(statistics, logits, targets, first_class);
}

void merge_softmax_statistics(const Context& context, Tensor statistics, Tensor parts) {
  expect_device(context, {statistics, parts});
  expect_shape(statistics, statistics.rows(), 3, "softmax statistics");
  CHECK(parts.cols() == 3 && parts.dtype() == statistics.dtype() && parts.rows() > 0 &&
            parts.rows() % std::max<std::int64_t>(statistics.rows(), 1) == 0,
        "parts of softmax statistics are ", parts.describe(), ", expected whole parts like ",
        statistics.describe());
  const Recorded recorded(context, "merge_softmax_statistics");
  context.backend.merge_softmax_statistics(statistics, parts);
}

void cross_entropy_losses(const Context& context, Tensor losses, Tensor statistics,
                          Tensor targets) {
  expect_device(context, {losses, statistics, targets});
  CHECK(losses.dtype() == DType::f64, "losses are f64, not ", losses.describe());
  expect_indices(targets, losses.size(), "targets");
  const Recorded recorded(context, "cross_entropy_losses");
  context.backend.cross_entropy_losses(losses, statistics, targets);
}

void cross_entropy_backward(const Context& context, Tensor logits, Tensor statistics,
                            Tensor targets, std::int64_t first_class, const Scalar& scale) {
  expect_device(context, {logits, statistics, targets});
  if (scale.in_memory()) expect_device(context, {scale.memory()});
  expect_indices(targets, logits.rows(), "targets");
  expect_shape(statistics, logits.rows(), 3, "softmax statistics");
  const Recorded recorded(context, "cross_entropy_backward");
  context.backend.cross_entropy_backward(logits, statistics, targets, first_class, scale);
}

void cross_entropy(const Context& context, Tensor losses, Tensor statistics, Tensor logits,
                   Tensor targets, const Scalar& scale) {
  expect_device(context, {losses, statistics, logits, targets});
  if (scale.in_memory()) expect_device(context, {scale.memory()});
  CHECK(losses.dtype() == DType::f64 && losses.size() == logits.rows(),
        "losses are f64, one a row, not ", losses.describe());
  expect_indices(targets, logits.rows(), "targets");
  expect_shape(statistics, logits.rows(), 3, "softmax statistics");
  context.backend.cross_entropy(losses, statistics, logits, targets, scale);
}

}  // namespace convoy::ops
