// The gradients of a convolution against their formulas in plain loops, element by element, with
// a bound from the dtype, the number of terms and their magnitudes.
#include "tests/core/conv_case.h"
#include "tests/core/direction_check.h"

namespace convoy::test {
namespace {

// Sums by definition, row-major.
struct Sums {
  std::int64_t cols = 1;
  std::vector<Expected> all;

  explicit Sums(const Tensor& t) : cols(t.cols()) {
    for (const double start : values(t)) all.push_back({start, std::abs(start)});
  }
  Sums(std::int64_t rows, std::int64_t columns)
      : cols(columns), all(static_cast<std::size_t>(rows * columns), Expected{0, 0}) {}

  void add(std::int64_t i, std::int64_t j, double term, double magnitude) {
    Expected& e = all[static_cast<std::size_t>(i * cols + j)];
    e.value += term;
    e.magnitude += magnitude;
  }
};

void expect_sums(const Tensor& t, const Sums& sums, std::int64_t terms, const char* what) {
  for (std::int64_t i = 0; i < t.rows(); ++i) {
    for (std::int64_t j = 0; j < t.cols(); ++j) {
      const Expected& e = sums.all[static_cast<std::size_t>(i * sums.cols + j)];
      ASSERT_NEAR(at(t, i, j), e.value, sum_bound(t.dtype(), terms, e.magnitude))
          << what << " at " << i << ", " << j;
    }
  }
}

// |s| + what is generated, each part's magnitude.
double tap_magnitude(const ConvCase& c, const ConvFilters& f, std::int64_t t, int w,
                     std::int64_t d) {
  double sum = std::abs(at(f.s, w, d));
  if (c.shape.kind == FilterKind::headwise) {
    sum += std::abs(at(f.generated, t, d / c.shape.head_size * c.shape.width + w));
  }
  if (c.shape.kind == FilterKind::lowrank) {
    for (std::int64_t r = 0; r < c.shape.filter_rank; ++r) {
      sum += std::abs(at(f.generated, t, r) * at(f.u, r * c.shape.width + w, d));
    }
  }
  return sum;
}

struct Gradients {
  Sums dx, dgenerated, ds, du;
};

// Walks over every product of the forward pass and gives each factor its share.
void add_shares(Gradients& g, const ConvCase& c, const ConvTensors& in, std::int64_t t,
                std::int64_t d) {
  const double dy = at(in.dy, t, d);
  if (c.shape.residual) g.dx.add(t, d, dy, std::abs(dy));
  const std::int64_t reach = in.rows.reach.data<std::int32_t>()[t];
  for (int w = 0; w < c.shape.width && w <= reach; ++w) {
    const double dtap = dy * at(in.x, t - w, d);
    const double size = std::abs(dtap);
    g.dx.add(t - w, d, dy * tap(c, in.filters, t, w, d),
             std::abs(dy) * tap_magnitude(c, in.filters, t, w, d));
    g.ds.add(w, d, dtap, size);
    if (c.shape.kind == FilterKind::headwise) {
      g.dgenerated.add(t, d / c.shape.head_size * c.shape.width + w, dtap, size);
    }
    for (std::int64_t r = 0; r < (in.filters.u.empty() ? 0 : c.shape.filter_rank); ++r) {
      const double z = at(in.filters.generated, t, r);
      const double u = at(in.filters.u, r * c.shape.width + w, d);
      g.dgenerated.add(t, r, dtap * u, size * std::abs(u));
      g.du.add(r * c.shape.width + w, d, dtap * z, size * std::abs(z));
    }
  }
}

void expect_formulas(DType dtype, Layout layout) {
  Workbench bench(dtype);
  for (const ConvCase& c : conv_cases()) {
    SCOPED_TRACE(c.name());
    const ArenaScope scope(bench.arena());
    const ConvTensors in(bench, c, layout);
    const ConvFilters& f = in.filters;
    Tensor dx = bench.output({c.rows(), c.channels}, layout), dgenerated, du;
    if (!f.generated.empty()) dgenerated = bench.output({c.rows(), f.generated.cols()}, layout);
    // Weight gradients start from something: they add up.
    Tensor ds = bench.random({c.shape.width, c.channels});
    if (!f.u.empty()) du = bench.random({c.shape.filter_rank, c.shape.width, c.channels});
    Gradients g{Sums(c.rows(), c.channels),
                Sums(c.rows(), f.generated.empty() ? 0 : f.generated.cols()), Sums(ds),
                du.empty() ? Sums(0, 0) : Sums(du)};
    for (std::int64_t t = 0; t < c.rows(); ++t) {
      for (std::int64_t d = 0; d < c.channels; ++d) add_shares(g, c, in, t, d);
    }
    ops::conv_backward_input(bench.context(), dx, dgenerated, {}, in.dy, in.x, f, c.shape, in.rows);
    ops::conv_backward_weight(bench.context(), ds, du, in.dy, in.x, f, c.shape, in.rows);
    const std::int64_t width = c.shape.width;
    expect_sums(dx, g.dx, (c.shape.filter_rank + 2) * width, "dx");
    if (!f.generated.empty()) expect_sums(dgenerated, g.dgenerated, width * c.channels, "dz");
    expect_sums(ds, g.ds, c.rows(), "ds");
    if (!f.u.empty()) expect_sums(du, g.du, c.rows(), "du");
  }
}

TEST(ConvBackward, EqualsItsFormulasInF64) { expect_formulas(DType::f64, Layout::strided); }
TEST(ConvBackward, EqualsItsFormulasInF32) { expect_formulas(DType::f32, Layout::contiguous); }
TEST(ConvBackward, EqualsItsFormulasInF32OnColumnsOfWiderMatrices) {
  expect_formulas(DType::f32, Layout::strided);
}

TEST(ConvBackward, AllGradientsTogetherGiveTheSlopeAlongARandomDirection) {
  Workbench bench;
  for (const ConvCase& c : conv_cases()) {
    SCOPED_TRACE(c.name());
    const ArenaScope scope(bench.arena());
    const ConvTensors in(bench, c, Layout::strided);
    const ConvFilters& f = in.filters;
    Tensor y = bench.output({c.rows(), c.channels}), dx = bench.output({c.rows(), c.channels});
    Tensor ds = bench.zeros({c.shape.width, c.channels});
    std::vector<Slot> slots = {{in.x, dx, 1}, {f.s, ds, 0.1}};
    Tensor dgenerated, du;
    if (!f.generated.empty()) {
      dgenerated = bench.output({c.rows(), f.generated.cols()}, Layout::strided);
      slots.push_back({f.generated, dgenerated, 0.1});
    }
    if (!f.u.empty()) {
      du = bench.zeros({c.shape.filter_rank, c.shape.width, c.channels});
      slots.push_back({f.u, du, 0.1});
    }
    ops::conv_backward_input(bench.context(), dx, dgenerated, {}, in.dy, in.x, f, c.shape, in.rows);
    ops::conv_backward_weight(bench.context(), ds, du, in.dy, in.x, f, c.shape, in.rows);
    double magnitude = 0;
    for (std::int64_t t = 0; t < c.rows(); ++t) {
      for (std::int64_t d = 0; d < c.channels; ++d) {
        magnitude += std::abs(at(in.dy, t, d)) * expected_output(c, in, t, d).magnitude;
      }
    }
    const std::int64_t terms = (c.shape.filter_rank + 2) * c.shape.width;
    expect_directional_derivative(slots, sum_bound(DType::f64, terms, magnitude), [&] {
      ops::conv_forward(bench.context(), y, in.x, f, c.shape, in.rows);
      return weighted_sum(y, in.dy);
    });
  }
}

}  // namespace
}  // namespace convoy::test
