#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

struct AttentionCase {
  AttentionShape shape;
  std::vector<std::int64_t> documents;  // lengths, of one sequence; empty: one document
};

// The last is longer than two tiles of keys, so that the largest score of a row often comes late.
std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all = {
      {{2, 1, 1, 1, 2}, {}},           {{1, 47, 2, 2, 6}, {}},   {{1, 64, 2, 1, 24}, {1, 1, 62}},
      {{1, 65, 4, 2, 32}, {64, 1}},    {{1, 130, 2, 2, 40}, {}}, {{2, 23, 3, 1, 10}, {7, 1, 15}},
      {{1, 150, 1, 1, 16}, {140, 10}}, {{1, 300, 2, 1, 8}, {}}};
  return all;
}

struct AttentionTensors {
  Tensor q, k, v, dout, starts;
  std::vector<std::int64_t> start;

  AttentionTensors(Workbench& bench, const AttentionCase& c, Layout layout) {
    const AttentionShape& s = c.shape;
    const std::int64_t rows = s.sequences * s.length;
    q = bench.random({rows, s.query_heads * s.head_width}, 1, layout);
    k = bench.random({rows, s.kv_heads * s.head_width}, 1, layout);
    v = bench.random({rows, s.kv_heads * s.head_width}, 1, layout);
    dout = bench.random({rows, s.query_heads * s.head_width}, 1, layout);
    for (std::int64_t b = 0; b < s.sequences; ++b) {
      std::int64_t first = 0;
      for (const auto length : c.documents) {
        start.insert(start.end(), static_cast<std::size_t>(length), first);
        first += length;
      }
      if (c.documents.empty()) start.insert(start.end(), static_cast<std::size_t>(s.length), 0);
    }
    starts = bench.indices(start);
  }
};

// Softmax attention of one row and head in plain loops: the output, and the weights' magnitude.
std::vector<double> expected_row(const AttentionCase& c, const AttentionTensors& in,
                                 std::int64_t row, std::int64_t head) {
  const AttentionShape& s = c.shape;
  const std::int64_t width = s.head_width, group = s.query_heads / s.kv_heads;
  const std::int64_t base = row / s.length * s.length;
  std::vector<double> scores;
  const std::int64_t first = base + in.start[static_cast<std::size_t>(row)];
  for (std::int64_t j = first; j <= row; ++j) {
    double score = 0;
    for (std::int64_t d = 0; d < width; ++d) {
      score += at(in.q, row, head * width + d) * at(in.k, j, head / group * width + d);
    }
    scores.push_back(score / std::sqrt(static_cast<double>(width)));
  }
  double total = 0;
  for (const double score : scores) total += std::exp(score);
  std::vector<double> out(static_cast<std::size_t>(width), 0.0);
  for (std::int64_t j = first; j <= row; ++j) {
    const double p = std::exp(scores[static_cast<std::size_t>(j - first)]) / total;
    for (std::int64_t d = 0; d < width; ++d) {
      out[static_cast<std::size_t>(d)] += p * at(in.v, j, head / group * width + d);
    }
  }
  return out;
}

void expect_softmax(DType dtype, Layout layout) {
  for (const AttentionCase& c : cases()) {
    Workbench bench(dtype);
    const AttentionTensors in(bench, c, layout);
    const AttentionShape& s = c.shape;
    Tensor out = bench.output({in.q.rows(), in.q.cols()}, layout);
    Tensor lse = bench.output({in.q.rows(), s.query_heads});
    ops::attention_forward(bench.context(), out, lse, in.q, in.k, in.v, in.starts, s);
    // Scores below about 30 carry (K + 8) u of them into exponents, a relative error of weights
    // that sum to 1, on values below 5; the sums over keys add T u.
    const double score_error = sum_bound(dtype, s.head_width, 30);
    const double bound = 5 * (2 * score_error + sum_bound(dtype, s.length, 1));
    for (std::int64_t row = 0; row < in.q.rows(); ++row) {
      for (std::int64_t head = 0; head < s.query_heads; ++head) {
        const auto expected = expected_row(c, in, row, head);
        for (std::int64_t d = 0; d < s.head_width; ++d) {
          ASSERT_NEAR(at(out, row, head * s.head_width + d), expected[static_cast<std::size_t>(d)],
                      bound)
              << "T " << s.length << " K " << s.head_width << " row " << row;
        }
      }
    }
  }
}

TEST(Attention, EqualsSoftmaxInsideDocumentsInF64) {
  expect_softmax(DType::f64, Layout::contiguous);
}
TEST(Attention, EqualsSoftmaxInsideDocumentsInF32OnColumns) {
  expect_softmax(DType::f32, Layout::strided);
}

TEST(Attention, GradientsEqualCentralDifferences) {
  const AttentionCase small[] = {{{2, 5, 2, 1, 4}, {2, 1, 2}},
                                 {{1, 1, 1, 1, 2}, {}},
                                 {{1, 19, 2, 2, 6}, {}},
                                 {{1, 40, 1, 1, 2}, {25, 15}}};
  for (const AttentionCase& c : small) {
    Workbench bench;
    const AttentionTensors in(bench, c, Layout::strided);
    Tensor out = bench.output({in.q.rows(), in.q.cols()}, Layout::strided);
    Tensor lse = bench.output({in.q.rows(), c.shape.query_heads});
    const auto loss = [&] {
      ops::attention_forward(bench.context(), out, lse, in.q, in.k, in.v, in.starts, c.shape);
      return weighted_terms(out, in.dout);
    };
    loss();
    Tensor dq = bench.output({in.q.rows(), in.q.cols()}, Layout::strided);
    Tensor dk = bench.output({in.k.rows(), in.k.cols()}, Layout::strided);
    Tensor dv = bench.output({in.v.rows(), in.v.cols()}, Layout::strided);
    ops::attention_backward(bench.context(), dq, dk, dv, in.dout, in.q, in.k, in.v, out, lse,
                            in.starts, c.shape);
    // dscore = p (dout . v - out . dout): where a row sees one key, two equal sums leave a
    // rounding.
    const auto width = static_cast<double>(c.shape.head_width);
    const double cancelling = 2 * width * largest(in.dout) * largest(in.v) / std::sqrt(width);
    expect_gradient(in.q, dq, loss, "dq", 64, cancelling * largest(in.k));
    expect_gradient(in.k, dk, loss, "dk", 64, cancelling * largest(in.q));
    expect_gradient(in.v, dv, loss, "dv");
  }
}

TEST(Attention, BitsDoNotDependOnTheOtherSequences) {
  Workbench bench(DType::f32);
  const AttentionCase c{{3, 50, 2, 1, 24}, {20, 30}};
  const AttentionTensors in(bench, c, Layout::contiguous);
  Tensor out = bench.output({150, 48}), lse = bench.output({150, 2});
  ops::attention_forward(bench.context(), out, lse, in.q, in.k, in.v, in.starts, c.shape);
  AttentionShape one = c.shape;
  one.sequences = 1;
  Tensor alone = bench.output({50, 48}), lse_alone = bench.output({50, 2});
  ops::attention_forward(bench.context(), alone, lse_alone, in.q.row_range(100, 50),
                         in.k.row_range(100, 50), in.v.row_range(100, 50),
                         in.starts.reshape({150, 1}).row_range(100, 50).reshape({50}), one);
  EXPECT_EQ(values(alone), values(out.row_range(100, 50)));
}

}  // namespace
}  // namespace convoy::test
