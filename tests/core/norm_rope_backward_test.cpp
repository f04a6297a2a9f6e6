// RMSNorm's saved statistic and gradients element by element, and rotary positions in f32.
#include "tests/core/direction_check.h"

namespace convoy::test {
namespace {

struct NormCase {
  std::int64_t rows, groups, width;
};
const NormCase kNorms[] = {{1, 1, 1},  {5, 1, 37},  {3, 4, 6},   {2, 1, 128},
                           {7, 3, 33}, {131, 2, 8}, {64, 1, 16}, {65, 1, 17}};
constexpr double kEpsilon = 1e-5;

struct Norm {
  std::int64_t rows, groups, width;
  Tensor x, dy, weight, y, rstd;

  Norm(Workbench& bench, const NormCase& c, Layout layout)
      : rows(c.rows), groups(c.groups), width(c.width) {
    x = bench.random({rows, groups * width}, 1, layout);
    dy = bench.random({rows, groups * width}, 1, layout);
    weight = bench.random({width});
    y = bench.output({rows, groups * width}, layout);
    rstd = bench.output({rows, groups});
    forward(bench);
  }
  void forward(Workbench& bench) const {
    ops::rmsnorm_forward(bench.context(), y, rstd, x, weight, kEpsilon);
  }
};

// dx = rstd (w dy - n mean(w dy n)), n = x rstd; each factor carries at most (K + 8) roundings and
// a product has up to five of them.
void expect_input_gradient(const Norm& c, const Tensor& dx) {
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t g = 0; g < c.groups; ++g) {
      const auto n = static_cast<double>(c.width);
      double squares = 0, product = 0, size = 0;
      for (std::int64_t j = g * c.width; j < (g + 1) * c.width; ++j) {
        const double term = at(c.weight, 0, j % c.width) * at(c.dy, i, j) * at(c.x, i, j);
        squares += at(c.x, i, j) * at(c.x, i, j);
        product += term;
        size += std::abs(term);
      }
      const double r = 1 / std::sqrt(squares / n + kEpsilon);
      ASSERT_NEAR(at(c.rstd, i, g), r, sum_bound(dx.dtype(), c.width, r));
      for (std::int64_t j = g * c.width; j < (g + 1) * c.width; ++j) {
        const double own = r * at(c.weight, 0, j % c.width) * at(c.dy, i, j);
        const double shared = std::pow(r, 3) * at(c.x, i, j) / n;
        const double magnitude = std::abs(own) + std::abs(shared) * size;
        ASSERT_NEAR(at(dx, i, j), own - shared * product,
                    5 * sum_bound(dx.dtype(), c.width, magnitude))
            << i << ", " << j;
      }
    }
  }
}

void expect_weight_gradient(const Norm& c, const Tensor& dweight,
                            const std::vector<double>& start) {
  for (std::int64_t j = 0; j < c.width; ++j) {
    double sum = start[static_cast<std::size_t>(j)], size = std::abs(sum);
    for (std::int64_t i = 0; i < c.rows; ++i) {
      for (std::int64_t g = 0; g < c.groups; ++g) {
        const double term =
            at(c.dy, i, g * c.width + j) * at(c.x, i, g * c.width + j) * at(c.rstd, i, g);
        sum += term;
        size += std::abs(term);
      }
    }
    ASSERT_NEAR(at(dweight, 0, j), sum, sum_bound(dweight.dtype(), c.rows * c.groups, size)) << j;
  }
}

void expect_gradients(DType dtype, Layout layout) {
  Workbench bench(dtype);
  for (const NormCase& shape : kNorms) {
    SCOPED_TRACE(concat(shape.rows, " rows, ", shape.groups, " groups of ", shape.width));
    const ArenaScope scope(bench.arena());
    const Norm c(bench, shape, layout);
    Tensor dx = bench.output({c.rows, c.groups * c.width}, layout);
    Tensor dweight = bench.random({c.width});  // a weight's gradient adds up
    const auto start = values(dweight);
    ops::rmsnorm_backward_input(bench.context(), dx, c.dy, c.x, c.rstd, c.weight);
    ops::rmsnorm_backward_weight(bench.context(), dweight, c.dy, c.x, c.rstd);
    expect_input_gradient(c, dx);
    expect_weight_gradient(c, dweight, start);
  }
}

TEST(RmsNorm, StatisticAndGradientsEqualTheirFormulasInF64) {
  expect_gradients(DType::f64, Layout::strided);
}
TEST(RmsNorm, StatisticAndGradientsEqualTheirFormulasInF32) {
  expect_gradients(DType::f32, Layout::contiguous);
  expect_gradients(DType::f32, Layout::strided);
}

TEST(RmsNorm, GradientsGiveTheSlopeAlongARandomDirection) {
  Workbench bench;
  for (const NormCase& shape : kNorms) {
    if (shape.width < 6) continue;  // a single channel's norm is a sign: no slope but at 0
    SCOPED_TRACE(concat(shape.rows, " rows, ", shape.groups, " groups of ", shape.width));
    const ArenaScope scope(bench.arena());
    const Norm c(bench, shape, Layout::strided);
    Tensor dx = bench.output({c.rows, c.groups * c.width}), dweight = bench.zeros({c.width});
    ops::rmsnorm_backward_input(bench.context(), dx, c.dy, c.x, c.rstd, c.weight);
    ops::rmsnorm_backward_weight(bench.context(), dweight, c.dy, c.x, c.rstd);
    double magnitude = 0;
    for (std::int64_t i = 0; i < c.rows; ++i) {
      for (std::int64_t j = 0; j < c.y.cols(); ++j)
        magnitude += std::abs(at(c.y, i, j) * at(c.dy, i, j));
    }
    expect_directional_derivative({{c.x, dx, 1}, {c.weight, dweight, 1}},
                                  sum_bound(DType::f64, c.width, magnitude), [&] {
                                    c.forward(bench);
                                    return weighted_sum(c.y, c.dy);
                                  });
  }
}

// The table of cosines is rounded once and a turn has two products: three roundings of the pair.
TEST(Rope, StaysWithinAFewRoundingsOfItsFormulaInF32) {
  Workbench bench(DType::f32);
  for (const std::int64_t width : {2, 6, 24, 64}) {
    const ArenaScope scope(bench.arena());
    const std::vector<std::int64_t> position = {0, 1, 46, 4095, 7};
    Tensor x = bench.random({5, 3 * width}, 1, Layout::strided);
    const auto before = values(x);
    const auto old = [&](std::int64_t i, std::int64_t j) {
      return before[static_cast<std::size_t>(i * 3 * width + j)];
    };
    ops::rope(bench.context(), x, bench.indices(position), width, 1e4, RopeDirection::forward);
    for (std::int64_t i = 0; i < 5; ++i) {
      for (std::int64_t j = 0; j < 3 * width; ++j) {
        const std::int64_t half = width / 2, within = j % width;
        const bool first = within < half;
        const std::int64_t pair = first ? j + half : j - half;
        const double angle =
            static_cast<double>(position[static_cast<std::size_t>(i)]) *
            std::pow(1e4, -2.0 * static_cast<double>(within % half) / static_cast<double>(width));
        const double expected =
            old(i, j) * std::cos(angle) + (first ? -1 : 1) * old(i, pair) * std::sin(angle);
        const double size = std::abs(old(i, j)) + std::abs(old(i, pair));
        ASSERT_NEAR(at(x, i, j), expected, 3 * unit_roundoff(DType::f32) * size) << i << ", " << j;
      }
    }
  }
}

// A rotation's gradient is the rotation back: <R x, y> = <x, R^T y>.
TEST(Rope, BackwardIsTheTransposeOfForward) {
  Workbench bench;
  Tensor x = bench.random({6, 30}, 1, Layout::strided), y = bench.random({6, 30});
  Tensor turned = bench.output({6, 30}), back = bench.output({6, 30}, Layout::strided);
  copy_values(turned, x);
  copy_values(back, y);
  Tensor positions = bench.indices({5, 0, 1, 2, 0, 1});
  ops::rope(bench.context(), turned, positions, 10, 1e4, RopeDirection::forward);
  ops::rope(bench.context(), back, positions, 10, 1e4, RopeDirection::backward);
  double magnitude = 0;
  for (std::int64_t i = 0; i < 6; ++i) {
    for (std::int64_t j = 0; j < 30; ++j) magnitude += std::abs(at(turned, i, j) * at(y, i, j));
  }
  EXPECT_NEAR(weighted_sum(turned, y), weighted_sum(x, back),
              2 * sum_bound(DType::f64, 6 * 30, magnitude));
}

}  // namespace
}  // namespace convoy::test
