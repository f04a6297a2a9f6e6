#include "core/scalar_math.h"
#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

TEST(Swiglu, EqualsItsFormulaAndGradients) {
  Workbench bench;
  Tensor gate = bench.random({5, 19}, 3, Layout::strided);
  Tensor up = bench.random({5, 19}, 1, Layout::strided), dy = bench.random({5, 19});
  Tensor y = bench.output({5, 19}, Layout::strided);
  const auto loss = [&] {
    ops::swiglu_forward(bench.context(), y, gate, up);
    return weighted_terms(y, dy);
  };
  loss();
  for (std::int64_t i = 0; i < 5; ++i) {
    for (std::int64_t j = 0; j < 19; ++j) {
      const double g = at(gate, i, j);
      const double expected = g / (1 + std::exp(-g)) * at(up, i, j);
      ASSERT_NEAR(at(y, i, j), expected, 10 * unit_roundoff(DType::f64) * std::abs(expected));
    }
  }
  Tensor dgate = bench.output({5, 19}), dup = bench.output({5, 19}, Layout::strided);
  ops::swiglu_backward(bench.context(), dgate, dup, dy, gate, up);
  expect_gradient(gate, dgate, loss, "dgate");
  expect_gradient(up, dup, loss, "dup");
}

TEST(Exponential, IsAccurateOverItsRangeAndZeroFarBelow) {
  for (double x = -87; x < 88; x += 0.0137) {
    const auto f = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(f));
    ASSERT_NEAR(exponential(f), exact, 4 * unit_roundoff(DType::f32) * exact) << x;
  }
  EXPECT_EQ(exponential(-1e30f), 0.0f);
  EXPECT_EQ(exponential(-88.0f), 0.0f);
  EXPECT_EQ(exponential(0.0f), 1.0f);
  EXPECT_TRUE(std::isnan(exponential(std::nanf(""))));
}

TEST(Embedding, LooksUpRowsAndAddsTheirGradients) {
  Workbench bench;
  Tensor table = bench.random({7, 5}), tokens = bench.indices({3, 0, 3, 6});
  Tensor y = bench.output({4, 5}), dy = bench.random({4, 5}), dtable = bench.zeros({7, 5});
  ops::embedding_forward(bench.context(), y, table, tokens);
  ops::embedding_backward(bench.context(), dtable, dy, tokens);
  for (std::int64_t j = 0; j < 5; ++j) {
    EXPECT_EQ(at(y, 2, j), at(table, 3, j));
    EXPECT_EQ(at(dtable, 3, j), at(dy, 0, j) + at(dy, 2, j));
    EXPECT_EQ(at(dtable, 1, j), 0);
  }
  EXPECT_THROW(ops::embedding_forward(bench.context(), y, table, bench.indices({3, 0, 7, 6})),
               Error);
}

struct LossCase {
  Tensor logits, targets;
};

// Nats of each row, times `scale`.
std::vector<double> losses_of(Workbench& bench, const LossCase& c, double scale) {
  Tensor statistics = bench.output({c.logits.rows(), 3});
  Tensor losses = bench.arena().take(DType::f64, {c.logits.rows()});
  ops::softmax_statistics(bench.context(), statistics, c.logits, c.targets, 0);
  ops::cross_entropy_losses(bench.context(), losses, statistics, c.targets);
  std::vector<double> all;
  for (std::int64_t i = 0; i < c.logits.rows(); ++i)
    all.push_back(scale * losses.data<double>()[i]);
  return all;
}

TEST(CrossEntropy, EqualsItsFormulaAndGradientsWithMaskedRows) {
  Workbench bench;
  const LossCase c{bench.random({4, 37}, 3), bench.indices({36, -1, 0, 17})};
  const auto losses = losses_of(bench, c, 1);
  const std::int64_t targets[] = {36, -1, 0, 17};
  for (std::int64_t i = 0; i < 4; ++i) {
    double sum = 0, top = 0;
    for (std::int64_t j = 0; j < 37; ++j) {
      sum += std::exp(at(c.logits, i, j));
      top = std::max(top, std::abs(at(c.logits, i, j)));
    }
    const double expected = targets[i] < 0 ? 0 : std::log(sum) - at(c.logits, i, targets[i]);
    // Logits up to `top` enter exponentials with a rounding each; 37 of these are summed.
    EXPECT_NEAR(losses[static_cast<std::size_t>(i)], expected, sum_bound(DType::f64, 37, 1 + top));
  }
  Tensor gradient = bench.output({4, 37}), statistics = bench.output({4, 3});
  copy_values(gradient, c.logits);
  ops::softmax_statistics(bench.context(), statistics, c.logits, c.targets, 0);
  ops::cross_entropy_backward(bench.context(), gradient, statistics, c.targets, 0, 0.25);
  expect_gradient(
      c.logits, gradient, [&] { return losses_of(bench, c, 0.25); }, "dlogits");
}

TEST(CrossEntropy, ClassesInTwoHalvesCombineToTheWhole) {
  Workbench bench;
  const LossCase c{bench.random({3, 20}, 2), bench.indices({19, 4, 11})};
  Tensor all = bench.output({3, 3}), low = bench.output({3, 3}), high = bench.output({3, 3});
  ops::softmax_statistics(bench.context(), all, c.logits, c.targets, 0);
  ops::softmax_statistics(bench.context(), low, c.logits.column_range(0, 11), c.targets, 0);
  ops::softmax_statistics(bench.context(), high, c.logits.column_range(11, 9), c.targets, 11);
  for (std::int64_t i = 0; i < 3; ++i) {
    const double top = std::max(at(low, i, 0), at(high, i, 0));
    const double sum = at(low, i, 1) * std::exp(at(low, i, 0) - top) +
                       at(high, i, 1) * std::exp(at(high, i, 0) - top);
    EXPECT_EQ(top, at(all, i, 0));
    EXPECT_NEAR(sum, at(all, i, 1), sum_bound(DType::f64, 20, sum));
    EXPECT_EQ(at(low, i, 2) + at(high, i, 2), at(all, i, 2));
  }
}

}  // namespace
}  // namespace convoy::test
