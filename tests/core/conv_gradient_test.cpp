#include "tests/core/conv_case.h"

namespace convoy::test {
namespace {

TEST(ConvBackward, EveryGradientEqualsCentralDifferences) {
  for (const ConvCase& c : conv_cases()) {
    SCOPED_TRACE(c.name());
    Workbench bench;
    const ConvTensors in(bench, c, Layout::contiguous);
    Tensor y = bench.output({c.rows(), c.channels});
    const auto loss = [&] {
      ops::conv_forward(bench.context(), y, in.x, in.filters, c.shape, in.rows);
      return weighted_terms(y, in.dy);
    };
    Tensor dx = bench.output({c.rows(), c.channels});
    Tensor dgenerated;
    if (!in.filters.generated.empty()) {
      dgenerated = bench.output({c.rows(), in.filters.generated.cols()});
    }
    ops::conv_backward_input(bench.context(), dx, dgenerated, {}, in.dy, in.x, in.filters, c.shape,
                             in.rows);
    expect_gradient(in.x, dx, loss, "dx");
    if (!dgenerated.empty()) expect_gradient(in.filters.generated, dgenerated, loss, "dgenerated");

    Tensor ds = bench.zeros({c.shape.width, c.channels});
    Tensor du;
    if (!in.filters.u.empty()) du = bench.zeros({c.shape.filter_rank, c.shape.width, c.channels});
    ops::conv_backward_weight(bench.context(), ds, du, in.dy, in.x, in.filters, c.shape, in.rows);
    expect_gradient(in.filters.s, ds, loss, "ds");
    if (!du.empty()) expect_gradient(in.filters.u, du, loss, "du");
  }
}

TEST(ConvBackward, WeightGradientsAddUp) {
  const ConvCase c{{FilterKind::lowrank, 4, 9, 0, true}, 2, 15, 21, {}};
  Workbench bench;
  const ConvTensors in(bench, c, Layout::contiguous);
  Tensor once_s = bench.zeros({4, 21}), twice_s = bench.zeros({4, 21});
  Tensor once_u = bench.zeros({9, 4, 21}), twice_u = bench.zeros({9, 4, 21});
  const auto add = [&](const Tensor& ds, const Tensor& du) {
    ops::conv_backward_weight(bench.context(), ds, du, in.dy, in.x, in.filters, c.shape, in.rows);
  };
  add(once_s, once_u);
  add(twice_s, twice_u);
  add(twice_s, twice_u);
  for (const auto& [once, twice] : {std::pair{once_s, twice_s}, {once_u, twice_u}}) {
    const auto a = values(once), b = values(twice);
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_EQ(2 * a[i], b[i]) << i;
  }
}

TEST(ConvBackward, F32StaysWithinItsBoundOfF64) {
  const ConvCase c{{FilterKind::lowrank, 4, 16, 0, true}, 1, 70, 37, {40, 30}};
  Workbench wide(DType::f64), narrow(DType::f32);
  const ConvTensors a(narrow, c, Layout::strided);
  const ConvTensors b(wide, c, Layout::contiguous);
  copy_values(b.x, a.x);
  copy_values(b.dy, a.dy);
  copy_values(b.filters.s, a.filters.s);
  copy_values(b.filters.u, a.filters.u);
  copy_values(b.filters.generated, a.filters.generated);
  Tensor dx32 = narrow.output({70, 37}), dx64 = wide.output({70, 37});
  Tensor dz32 = narrow.output({70, 16}, Layout::strided), dz64 = wide.output({70, 16});
  ops::conv_backward_input(narrow.context(), dx32, dz32, {}, a.dy, a.x, a.filters, c.shape, a.rows);
  ops::conv_backward_input(wide.context(), dx64, dz64, {}, b.dy, b.x, b.filters, c.shape, b.rows);
  // Terms of dx: W taps of R + 2 products; of dz: W * D products of three factors. Magnitudes are
  // bounded by the largest factors.
  const auto largest = [](const Tensor& t) {
    double top = 0;
    for (const double v : values(t)) top = std::max(top, std::abs(v));
    return top;
  };
  const double tap_size =
      1 + largest(b.filters.s) + 16 * largest(b.filters.generated) * largest(b.filters.u);
  const double dx_bound = sum_bound(DType::f32, 4 * 18, 4 * tap_size * largest(b.dy));
  const double dz_bound =
      sum_bound(DType::f32, 4 * 37, 4 * 37 * largest(b.dy) * largest(b.x) * largest(b.filters.u));
  for (std::int64_t t = 0; t < 70; ++t) {
    for (std::int64_t d = 0; d < 37; ++d) ASSERT_NEAR(at(dx32, t, d), at(dx64, t, d), dx_bound);
    for (std::int64_t r = 0; r < 16; ++r) ASSERT_NEAR(at(dz32, t, r), at(dz64, t, r), dz_bound);
  }
}

}  // namespace
}  // namespace convoy::test
