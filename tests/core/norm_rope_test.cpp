#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

struct NormCase {
  std::int64_t rows, groups, width;
};
const NormCase kNorms[] = {{1, 1, 1}, {5, 1, 37}, {3, 4, 6}, {2, 1, 128}, {7, 3, 33}};

void expect_norm(DType dtype, Layout layout) {
  for (const auto& [rows, groups, width] : kNorms) {
    Workbench bench(dtype);
    Tensor x = bench.random({rows, groups * width}, 1, layout), weight = bench.random({width});
    Tensor y = bench.output({rows, groups * width}, layout), rstd = bench.output({rows, groups});
    ops::rmsnorm_forward(bench.context(), y, rstd, x, weight, 1e-5);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t g = 0; g < groups; ++g) {
        double mean = 0;
        for (std::int64_t j = 0; j < width; ++j) mean += std::pow(at(x, i, g * width + j), 2);
        const double r = 1 / std::sqrt(mean / static_cast<double>(width) + 1e-5);
        for (std::int64_t j = 0; j < width; ++j) {
          const double expected = at(x, i, g * width + j) * r * at(weight, 0, j);
          ASSERT_NEAR(at(y, i, g * width + j), expected,
                      sum_bound(dtype, width, std::abs(expected)));
        }
      }
    }
  }
}

TEST(RmsNorm, EqualsItsFormulaOverGroups) {
  expect_norm(DType::f64, Layout::contiguous);
  expect_norm(DType::f32, Layout::strided);
}

TEST(RmsNorm, GradientsEqualCentralDifferencesAndWeightsAddUp) {
  for (const auto& [rows, groups, width] : kNorms) {
    Workbench bench;
    Tensor x = bench.random({rows, groups * width}), dy = bench.random({rows, groups * width});
    Tensor weight = bench.random({width}), y = bench.output({rows, groups * width});
    Tensor rstd = bench.output({rows, groups});
    const auto loss = [&] {
      ops::rmsnorm_forward(bench.context(), y, rstd, x, weight, 1e-5);
      return weighted_terms(y, dy);
    };
    loss();
    Tensor dx = bench.output({rows, groups * width}), dweight = bench.zeros({width});
    ops::rmsnorm_backward_input(bench.context(), dx, dy, x, rstd, weight);
    ops::rmsnorm_backward_weight(bench.context(), dweight, dy, x, rstd);
    if (width > 1) expect_gradient(x, dx, loss, "dx");
    loss();
    expect_gradient(weight, dweight, loss, "dweight");
    loss();
    const auto once = values(dweight);
    ops::rmsnorm_backward_weight(bench.context(), dweight, dy, x, rstd);
    for (std::size_t j = 0; j < once.size(); ++j) ASSERT_EQ(values(dweight)[j], 2 * once[j]);
  }
}

TEST(Rope, TurnsHalfSplitPairsByPositionTimesFrequency) {
  Workbench bench;
  Tensor x = bench.random({3, 12});
  const auto before = values(x);
  ops::rope(bench.context(), x, bench.indices({0, 5, 900}), 6, 1e4, RopeDirection::forward);
  const double position[] = {0, 5, 900};
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t head = 0; head < 2; ++head) {
      for (std::int64_t j = 0; j < 3; ++j) {
        const double angle = position[i] * std::pow(1e4, -2.0 * static_cast<double>(j) / 6);
        const double a = before[static_cast<std::size_t>(i * 12 + head * 6 + j)];
        const double b = before[static_cast<std::size_t>(i * 12 + head * 6 + 3 + j)];
        // The angle may be off by a few of its own roundings.
        const double bound =
            (4 + 4 * angle) * unit_roundoff(DType::f64) * (std::abs(a) + std::abs(b));
        ASSERT_NEAR(at(x, i, head * 6 + j), a * std::cos(angle) - b * std::sin(angle), bound);
        ASSERT_NEAR(at(x, i, head * 6 + 3 + j), b * std::cos(angle) + a * std::sin(angle), bound);
      }
    }
  }
}

TEST(Rope, BackwardUndoesForward) {
  Workbench bench;
  Tensor x = bench.random({9, 20}, 1, Layout::strided);
  const auto before = values(x);
  Tensor positions = bench.indices({0, 1, 2, 3, 4, 5, 6, 7, 8});
  ops::rope(bench.context(), x, positions, 10, 1e4, RopeDirection::forward);
  EXPECT_NE(values(x), before);
  ops::rope(bench.context(), x, positions, 10, 1e4, RopeDirection::backward);
  for (std::size_t i = 0; i < before.size(); ++i) {
    ASSERT_NEAR(values(x)[i], before[i], sum_bound(DType::f64, 4, std::abs(before[i]) + 1));
  }
}

}  // namespace
}  // namespace convoy::test
