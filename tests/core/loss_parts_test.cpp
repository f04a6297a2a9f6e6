// SwiGLU, embedding and cross-entropy in f32 and on columns, classes split over ranks through the
// backward pass, rows that do not count, and logits whose exponentials would overflow.
#include "tests/core/direction_check.h"

namespace convoy::test {
namespace {

double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

// exponential() is within 5 u of e^x; a sigmoid adds a sum and a quotient, and its derivative up to
// |x| times that. Ten roundings cover each factor, of which silu' has two.
void expect_swiglu(DType dtype, Layout layout) {
  Workbench bench(dtype);
  for (const auto& [rows, cols] : {std::array<std::int64_t, 2>{1, 1}, {3, 17}, {5, 67}}) {
    const ArenaScope scope(bench.arena());
    Tensor gate = bench.random({rows, cols}, 3, layout), up = bench.random({rows, cols}, 1, layout);
    Tensor dy = bench.random({rows, cols}, 1, layout), y = bench.output({rows, cols}, layout);
    Tensor dgate = bench.output({rows, cols}, layout), dup = bench.output({rows, cols}, layout);
    ops::swiglu_forward(bench.context(), y, gate, up);
    ops::swiglu_backward(bench.context(), dgate, dup, dy, gate, up);
    const double roundings = 10 * unit_roundoff(dtype);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const double g = at(gate, i, j), s = sigmoid_of(g), u = at(up, i, j), d = at(dy, i, j);
        ASSERT_NEAR(at(y, i, j), g * s * u, roundings * std::abs(g * s * u));
        ASSERT_NEAR(at(dup, i, j), d * g * s, roundings * std::abs(d * g * s));
        ASSERT_NEAR(at(dgate, i, j), d * u * s * (1 + g * (1 - s)),
                    2 * roundings * std::abs(d * u * s) * (1 + std::abs(g)));
      }
    }
  }
}

TEST(Swiglu, StaysWithinItsRoundingsInF64) { expect_swiglu(DType::f64, Layout::strided); }
TEST(Swiglu, StaysWithinItsRoundingsInF32) {
  expect_swiglu(DType::f32, Layout::contiguous);
  expect_swiglu(DType::f32, Layout::strided);
}

TEST(Embedding, CopiesBitsAndAddsToWhatIsThereInF32) {
  Workbench bench(DType::f32);
  const std::vector<std::int64_t> token = {3, 0, 3, 6, 3};
  Tensor table = bench.random({7, 19}), y = bench.output({5, 19}, Layout::strided);
  Tensor dy = bench.random({5, 19}, 1, Layout::strided), dtable = bench.random({7, 19});
  const auto start = values(dtable);
  ops::embedding_forward(bench.context(), y, table, bench.indices(token));
  ops::embedding_backward(bench.context(), dtable, dy, bench.indices(token));
  for (std::int64_t j = 0; j < 19; ++j) {
    for (std::int64_t i = 0; i < 5; ++i) {
      ASSERT_EQ(at(y, i, j), at(table, token[static_cast<std::size_t>(i)], j));
    }
    for (std::int64_t row = 0; row < 7; ++row) {
      double sum = start[static_cast<std::size_t>(row * 19 + j)], size = std::abs(sum);
      for (std::int64_t i = 0; i < 5; ++i) {
        if (token[static_cast<std::size_t>(i)] != row) continue;
        sum += at(dy, i, j);
        size += std::abs(at(dy, i, j));
      }
      ASSERT_NEAR(at(dtable, row, j), sum, sum_bound(DType::f32, 3, size)) << row << ", " << j;
    }
  }
}

TEST(Embedding, RefusesATokenOutsideTheTable) {
  Workbench bench;
  Tensor table = bench.random({7, 5}), y = bench.output({2, 5});
  EXPECT_THROW(ops::embedding_forward(bench.context(), y, table, bench.indices({0, -1})), Error);
  EXPECT_THROW(ops::embedding_forward(bench.context(), y, table, bench.indices({7, 0})), Error);
}

// Cross-entropy of rows of logits by definition.
struct Softmax {
  double top = -std::numeric_limits<double>::infinity(), sum = 0;

  Softmax(const Tensor& logits, std::int64_t row) {
    for (std::int64_t j = 0; j < logits.cols(); ++j) top = std::max(top, at(logits, row, j));
    for (std::int64_t j = 0; j < logits.cols(); ++j) sum += std::exp(at(logits, row, j) - top);
  }
};

void expect_cross_entropy(DType dtype, Layout layout, std::int64_t classes, double deviation) {
  SCOPED_TRACE(concat(classes, " classes, deviation ", deviation));
  constexpr double kScale = 0.37;
  constexpr std::int64_t kRows = 5;
  Workbench bench(dtype);
  const std::vector<std::int64_t> target = {classes - 1, -1, 0, classes / 2, -1};
  Tensor logits = bench.random({kRows, classes}, deviation, layout);
  Tensor targets = bench.indices(target), statistics = bench.output({kRows, 3});
  Tensor losses = bench.arena().take(DType::f64, {kRows});
  bench.backend().fill(losses, std::numeric_limits<double>::quiet_NaN());
  ops::softmax_statistics(bench.context(), statistics, logits, targets, 0);
  ops::cross_entropy_losses(bench.context(), losses, statistics, targets);
  Tensor gradient = bench.output({kRows, classes}, layout);
  copy_values(gradient, logits);
  ops::cross_entropy_backward(bench.context(), gradient, statistics, targets, 0, kScale);
  for (std::int64_t i = 0; i < kRows; ++i) {
    const Softmax row(logits, i);
    // A logit minus the largest is rounded at the size of their distance, which the exponential
    // turns into a relative error; the weight x e^-x of it is below 1/e for terms below the top.
    const double sum_error = sum_bound(dtype, classes, row.sum) + unit_roundoff(dtype) * row.sum;
    ASSERT_EQ(at(statistics, i, 0), row.top);
    ASSERT_NEAR(at(statistics, i, 1), row.sum, sum_error);
    const std::int64_t t = target[static_cast<std::size_t>(i)];
    const double picked = t < 0 ? 0 : at(logits, i, t);
    const double loss = t < 0 ? 0 : std::log(row.sum) + row.top - picked;
    ASSERT_NEAR(losses.data<double>()[i], loss,
                t < 0 ? 0
                      : sum_error / row.sum +
                            sum_bound(DType::f64, 4, std::abs(row.top) + std::abs(picked)));
    for (std::int64_t j = 0; j < classes; ++j) {
      const double distance = row.top - at(logits, i, j);
      const double p = std::exp(-distance) / row.sum;
      const double expected = t < 0 ? 0 : kScale * (p - (j == t ? 1 : 0));
      const double error =
          kScale * (p * (sum_error / row.sum + unit_roundoff(dtype) * (8 + distance)) +
                    2 * unit_roundoff(dtype) * (j == t ? 1 : 0));
      // Below e^-87 exponential() gives 0.
      ASSERT_NEAR(at(gradient, i, j), expected, t < 0 ? 0 : error + kScale * std::exp(-87.0))
          << i << ", " << j;
    }
  }
}

TEST(CrossEntropy, LossesAndGradientsEqualTheirFormulasInEveryDtype) {
  for (const auto dtype : {DType::f64, DType::f32}) {
    for (const auto layout : {Layout::contiguous, Layout::strided}) {
      for (const std::int64_t classes : {1, 2, 15, 16, 17, 257}) {
        expect_cross_entropy(dtype, layout, classes, 3);
      }
    }
  }
}

TEST(CrossEntropy, LogitsInTheThousandsNeitherOverflowNorVanish) {
  expect_cross_entropy(DType::f32, Layout::contiguous, 37, 5000);
  expect_cross_entropy(DType::f64, Layout::contiguous, 37, 5000);
}

// Each half of the classes on a rank of its own: statistics combined as ranks do, then each half's
// gradient is bit for bit that of the whole, given the same statistics.
TEST(CrossEntropy, HalvesOfTheClassesGiveTheWholesGradientBitForBit) {
  for (const auto dtype : {DType::f64, DType::f32}) {
    Workbench bench(dtype);
    Tensor logits = bench.random({6, 37}, 3), targets = bench.indices({0, 18, 19, 36, -1, 5});
    Tensor all = bench.output({6, 3}), low = bench.output({6, 3}), high = bench.output({6, 3});
    const Tensor left = logits.column_range(0, 19), right = logits.column_range(19, 18);
    const Context run = bench.context();
    ops::softmax_statistics(run, all, logits, targets, 0);
    ops::softmax_statistics(run, low, left, targets, 0);
    ops::softmax_statistics(run, high, right, targets, 19);
    for (std::int64_t i = 0; i < 6; ++i) {
      const double top = std::max(at(low, i, 0), at(high, i, 0));
      const double sum = at(low, i, 1) * std::exp(at(low, i, 0) - top) +
                         at(high, i, 1) * std::exp(at(high, i, 0) - top);
      ASSERT_EQ(top, at(all, i, 0));
      ASSERT_NEAR(sum, at(all, i, 1), 2 * sum_bound(dtype, 37, sum));
      ASSERT_EQ(at(low, i, 2) + at(high, i, 2), at(all, i, 2));  // one of them is 0
    }
    Tensor whole = bench.output({6, 37}), cut = bench.output({6, 37});
    copy_values(whole, logits);
    copy_values(cut, logits);
    ops::cross_entropy_backward(run, whole, all, targets, 0, 0.5);
    ops::cross_entropy_backward(run, cut.column_range(0, 19), all, targets, 0, 0.5);
    ops::cross_entropy_backward(run, cut.column_range(19, 18), all, targets, 19, 0.5);
    EXPECT_EQ(values(whole), values(cut));
  }
}

}  // namespace
}  // namespace convoy::test
