// Attention's log-sum-exp and gradients against their formulas in plain loops, over the sizes
// where tiles of queries and keys begin and end.
#include "tests/core/direction_check.h"

namespace convoy::test {
namespace {

struct AttentionCase {
  AttentionShape shape;
  std::vector<std::int64_t> documents;  // lengths, of every sequence
};

const AttentionCase kCases[] = {{{2, 1, 1, 1, 2}, {1}},         {{1, 47, 2, 2, 6}, {1, 45, 1}},
                                {{1, 64, 4, 2, 24}, {64}},      {{1, 65, 2, 1, 32}, {1, 1, 63}},
                                {{1, 130, 2, 1, 40}, {130}},    {{2, 65, 3, 1, 24}, {64, 1}},
                                {{1, 130, 2, 2, 6}, {128, 2}},  {{2, 23, 6, 2, 2}, {7, 1, 15}},
                                {{1, 261, 2, 1, 6}, {129, 132}}};

struct Case {
  const AttentionShape shape;
  std::vector<std::int64_t> start;
  Tensor q, k, v, dout, starts, out, lse;

  Case(Workbench& bench, const AttentionCase& c, Layout layout) : shape(c.shape) {
    const std::int64_t rows = shape.sequences * shape.length, width = shape.head_width;
    q = bench.random({rows, shape.query_heads * width}, 1, layout);
    k = bench.random({rows, shape.kv_heads * width}, 1, layout);
    v = bench.random({rows, shape.kv_heads * width}, 1, layout);
    dout = bench.random({rows, shape.query_heads * width}, 1, layout);
    for (std::int64_t b = 0; b < shape.sequences; ++b) {
      std::int64_t first = 0;
      for (const auto length : c.documents) {
        start.insert(start.end(), static_cast<std::size_t>(length), first);
        first += length;
      }
    }
    starts = bench.indices(start);
    out = bench.output({rows, shape.query_heads * width}, layout);
    lse = bench.output({rows, shape.query_heads});
  }
  void forward(Workbench& bench) const {
    ops::attention_forward(bench.context(), out, lse, q, k, v, starts, shape);
  }
};

// A sum by definition and a first-order bound on its error over u, term by term.
struct Term {
  double value = 0, error = 0;
};
using Matrix = std::vector<Term>;

// All of one backward pass in plain loops. Errors: a score is a product over K, so it carries
// (K + 8) sum |q k| u; a weight p = exp(s - lse) multiplies that by p; each later product adds the
// errors of its factors and a rounding; sums over T keys or queries add (T + 8) u of magnitudes.
struct Reference {
  Matrix dq, dk, dv, lse;

  explicit Reference(const Case& c)
      : dq(size(c.q)), dk(size(c.k)), dv(size(c.v)), lse(size(c.lse)) {
    for (std::int64_t row = 0; row < c.q.rows(); ++row) {
      for (std::int64_t head = 0; head < c.shape.query_heads; ++head) one_row(c, row, head);
    }
  }

 private:
  static std::size_t size(const Tensor& t) { return static_cast<std::size_t>(t.size()); }
  static void add(Matrix& m, const Tensor& t, std::int64_t i, std::int64_t j, double value,
                  double error) {
    Term& e = m[static_cast<std::size_t>(i * t.cols() + j)];
    e.value += value;
    e.error += error;
  }
  static Term product(const Tensor& a, std::int64_t i, std::int64_t a0, const Tensor& b,
                      std::int64_t j, std::int64_t b0, std::int64_t width) {
    Term sum;
    for (std::int64_t d = 0; d < width; ++d) {
      const double term = at(a, i, a0 + d) * at(b, j, b0 + d);
      sum.value += term;
      sum.error += static_cast<double>(width + 8) * std::abs(term);
    }
    return sum;
  }

  void one_row(const Case& c, std::int64_t row, std::int64_t head) {
    const AttentionShape& n = c.shape;
    const std::int64_t width = n.head_width, q0 = head * width;
    const std::int64_t k0 = head / (n.query_heads / n.kv_heads) * width;
    const std::int64_t first = row / n.length * n.length + c.start[static_cast<std::size_t>(row)];
    const double scale = 1 / std::sqrt(static_cast<double>(width));
    const double sums = static_cast<double>(n.length + 8);  // roundings of a sum over keys
    std::vector<Term> scores;
    double total = 0, score_error = 0;
    for (std::int64_t j = first; j <= row; ++j) {
      scores.push_back(product(c.q, row, q0, c.k, j, k0, width));
      scores.back().value *= scale;
      scores.back().error *= scale;
      total += std::exp(scores.back().value);
      score_error = std::max(score_error, scores.back().error + std::abs(scores.back().value));
    }
    const double log_total = std::log(total);
    // A relative error of every weight: of its score, of the sum, and of the exponential (5 u).
    const double weight_error = 2 * score_error + sums + 8 + std::abs(log_total);
    add(lse, c.lse, row, head, log_total, weight_error + 4 * std::abs(log_total));
    const Term delta = product(c.dout, row, q0, c.out, row, q0, width);
    double delta_size = 0;
    for (std::int64_t d = 0; d < width; ++d) {
      delta_size += std::abs(at(c.dout, row, q0 + d) * at(c.out, row, q0 + d));
    }
    for (std::int64_t j = first; j <= row; ++j) {
      const double p = std::exp(scores[static_cast<std::size_t>(j - first)].value - log_total);
      const Term dp = product(c.dout, row, q0, c.v, j, k0, width);
      const double ds = p * (dp.value - delta.value) * scale;
      const double spread = std::abs(dp.value) + std::abs(delta.value);
      const double ds_error =
          p * scale * (dp.error + delta.error + (weight_error + sums) * (spread + delta_size));
      for (std::int64_t d = 0; d < width; ++d) {
        const double qd = at(c.q, row, q0 + d), kd = at(c.k, j, k0 + d);
        const double od = at(c.dout, row, q0 + d);
        add(dv, c.v, j, k0 + d, p * od, p * std::abs(od) * (weight_error + sums));
        add(dq, c.q, row, q0 + d, ds * kd, (ds_error + sums * std::abs(ds)) * std::abs(kd));
        add(dk, c.k, j, k0 + d, ds * qd, (ds_error + sums * std::abs(ds)) * std::abs(qd));
      }
    }
  }
};

void expect_matrix(const Tensor& t, const Matrix& expected, const std::string& what) {
  for (std::int64_t i = 0; i < t.rows(); ++i) {
    for (std::int64_t j = 0; j < t.cols(); ++j) {
      const Term& e = expected[static_cast<std::size_t>(i * t.cols() + j)];
      ASSERT_NEAR(at(t, i, j), e.value, unit_roundoff(t.dtype()) * e.error)
          << what << " at " << i << ", " << j;
    }
  }
}

void expect_formulas(DType dtype, Layout layout) {
  Workbench bench(dtype);
  for (const AttentionCase& shape : kCases) {
    const ArenaScope scope(bench.arena());
    const Case c(bench, shape, layout);
    SCOPED_TRACE(concat("T ", c.shape.length, " K ", c.shape.head_width));
    c.forward(bench);
    Tensor dq = bench.output({c.q.rows(), c.q.cols()}, layout);
    Tensor dk = bench.output({c.k.rows(), c.k.cols()}, layout);
    Tensor dv = bench.output({c.v.rows(), c.v.cols()}, layout);
    ops::attention_backward(bench.context(), dq, dk, dv, c.dout, c.q, c.k, c.v, c.out, c.lse,
                            c.starts, c.shape);
    const Reference expected(c);
    expect_matrix(c.lse, expected.lse, "log_sum_exp");
    expect_matrix(dq, expected.dq, "dq");
    expect_matrix(dk, expected.dk, "dk");
    expect_matrix(dv, expected.dv, "dv");
  }
}

TEST(Attention, LogSumExpAndGradientsEqualTheirFormulasInF64) {
  expect_formulas(DType::f64, Layout::contiguous);
}
TEST(Attention, LogSumExpAndGradientsEqualTheirFormulasInF32OnColumns) {
  expect_formulas(DType::f32, Layout::strided);
}

TEST(Attention, GradientsGiveTheSlopeAlongARandomDirectionAtEverySize) {
  Workbench bench;
  for (const AttentionCase& shape : kCases) {
    const ArenaScope scope(bench.arena());
    const Case c(bench, shape, Layout::strided);
    SCOPED_TRACE(concat("T ", c.shape.length, " K ", c.shape.head_width));
    c.forward(bench);
    Tensor dq = bench.output({c.q.rows(), c.q.cols()}), dk = bench.output({c.k.rows(), c.k.cols()});
    Tensor dv = bench.output({c.v.rows(), c.v.cols()});
    ops::attention_backward(bench.context(), dq, dk, dv, c.dout, c.q, c.k, c.v, c.out, c.lse,
                            c.starts, c.shape);
    // An output is a mean of values with weights that sum to 1: about (K + T) roundings of |dout|.
    double magnitude = 0;
    for (const double d : values(c.dout)) magnitude += std::abs(d);
    const double error = sum_bound(DType::f64, c.shape.head_width + c.shape.length, magnitude);
    expect_directional_derivative({{c.q, dq, 1}, {c.k, dk, 1}, {c.v, dv, 1}}, error, [&] {
      c.forward(bench);
      return weighted_sum(c.out, c.dout);
    });
  }
}

}  // namespace
}  // namespace convoy::test
