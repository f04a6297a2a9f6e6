// What a halo must not change besides y and dx: the weights' gradients, the bits in f32, views with
// strides. And every kind of filter refuses a tap before the segment when there is no halo.
#include "tests/core/conv_case.h"

namespace convoy::test {
namespace {

struct CutCase {
  ConvCase conv;  // one sequence
  std::int64_t segments;
};

std::vector<CutCase> cut_cases() {
  using enum FilterKind;
  std::vector<CutCase> cases;
  for (const std::int64_t segments : {2, 3, 8}) {
    for (const bool residual : {true, false}) {
      cases.push_back({{{fixed, 4, 0, 0, residual}, 1, 24, 19, {}}, segments});
      cases.push_back({{{headwise, 3, 0, 4, residual}, 1, 24, 16, {10, 1, 13}}, segments});
      cases.push_back({{{headwise, 5, 0, 1, residual}, 1, 24, 7, {}}, segments});
      // Whole vectors, so that the uncut sequence goes eight rows at a time and the cut one hardly.
      cases.push_back({{{fixed, 4, 0, 0, residual}, 1, 24, 32, {}}, segments});
      cases.push_back({{{headwise, 4, 0, 16, residual}, 1, 24, 48, {9, 15}}, segments});
      cases.push_back({{{lowrank, 4, 5, 0, residual}, 1, 24, 33, {11, 13}}, segments});
      cases.push_back({{{lowrank, 8, 16, 0, residual}, 1, 24, 17, {}}, segments});
      cases.push_back({{{lowrank, 1, 3, 0, residual}, 1, 24, 5, {}}, segments});
    }
  }
  return cases;
}

// The rows of the cut sequence. What lies before the first segment is NaN: nothing may read it.
ConvRows cut(Workbench& bench, const CutCase& c, const ConvTensors& whole, Layout layout) {
  const std::int64_t length = c.conv.length / c.segments, before = c.conv.shape.width - 1;
  if (before == 0) return {c.segments, length, whole.rows.reach, {}};
  Tensor halo = bench.output({c.segments * before, c.conv.channels}, layout);
  for (std::int64_t i = 0; i < halo.rows(); ++i) {
    const std::int64_t t = i / before * length - before + i % before;
    if (t >= 0) copy_values(halo.row_range(i, 1), whole.x.row_range(t, 1));
  }
  return {c.segments, length, whole.rows.reach, halo};
}

void expect_bits_of_the_whole(DType dtype) {
  Workbench bench(dtype);
  for (const CutCase& c : cut_cases()) {
    SCOPED_TRACE(concat(c.conv.name(), " cut into ", c.segments));
    const ArenaScope scope(bench.arena());
    const ConvTensors in(bench, c.conv, Layout::strided);
    const ConvRows rows = cut(bench, c, in, Layout::strided);
    const std::int64_t n = c.conv.length, channels = c.conv.channels;
    Tensor y = bench.output({n, channels}), y_cut = bench.output({n, channels}, Layout::strided);
    ops::conv_forward(bench.context(), y, in.x, in.filters, c.conv.shape, in.rows);
    ops::conv_forward(bench.context(), y_cut, in.x, in.filters, c.conv.shape, rows);
    EXPECT_EQ(values(y), values(y_cut));
  }
}

TEST(ConvHalo, ForwardBitsAreThoseOfTheWholeInF32) { expect_bits_of_the_whole(DType::f32); }
TEST(ConvHalo, ForwardBitsAreThoseOfTheWholeInF64) { expect_bits_of_the_whole(DType::f64); }

void expect_near(const Tensor& a, const Tensor& b, std::int64_t terms, double largest_term) {
  const double bound = sum_bound(a.dtype(), terms, static_cast<double>(terms) * largest_term);
  for (std::int64_t i = 0; i < a.rows(); ++i) {
    for (std::int64_t j = 0; j < a.cols(); ++j) ASSERT_NEAR(at(a, i, j), at(b, i, j), bound);
  }
}

void expect_weight_gradients_of_the_whole(DType dtype) {
  Workbench bench(dtype);
  for (const CutCase& c : cut_cases()) {
    SCOPED_TRACE(concat(c.conv.name(), " cut into ", c.segments));
    const ArenaScope scope(bench.arena());
    const ConvTensors in(bench, c.conv, Layout::strided);
    const ConvRows rows = cut(bench, c, in, Layout::strided);
    const ConvShape& shape = c.conv.shape;
    Tensor ds = bench.zeros({shape.width, c.conv.channels}), du, du_cut;
    Tensor ds_cut = bench.zeros({shape.width, c.conv.channels});
    if (!in.filters.u.empty()) {
      du = bench.zeros({shape.filter_rank, shape.width, c.conv.channels});
      du_cut = bench.zeros({shape.filter_rank, shape.width, c.conv.channels});
    }
    ops::conv_backward_weight(bench.context(), ds, du, in.dy, in.x, in.filters, shape, in.rows);
    ops::conv_backward_weight(bench.context(), ds_cut, du_cut, in.dy, in.x, in.filters, shape,
                              rows);
    const double product = largest(in.dy) * largest(in.x);
    expect_near(ds, ds_cut, c.conv.length, product);
    if (!du.empty()) {
      expect_near(du, du_cut, c.conv.length, product * largest(in.filters.generated));
    }
  }
}

TEST(ConvHalo, WeightGradientsAreThoseOfTheWhole) {
  expect_weight_gradients_of_the_whole(DType::f64);
  expect_weight_gradients_of_the_whole(DType::f32);
}

// dhalo added to its owners' rows, in f32 and with strides; each gradient of a row and of a halo
// row is at most W taps of R + 2 products.
TEST(ConvHalo, HaloGradientsAddedToTheirOwnersGiveTheWholeInF32) {
  Workbench bench(DType::f32);
  for (const CutCase& c : cut_cases()) {
    SCOPED_TRACE(concat(c.conv.name(), " cut into ", c.segments));
    const ArenaScope scope(bench.arena());
    const ConvTensors in(bench, c.conv, Layout::strided);
    const ConvRows rows = cut(bench, c, in, Layout::strided);
    const std::int64_t n = c.conv.length, channels = c.conv.channels;
    const std::int64_t before = c.conv.shape.width - 1;
    Tensor dx = bench.output({n, channels}), dx_cut = bench.output({n, channels}, Layout::strided);
    Tensor dz, dz_cut, dhalo;
    if (!in.filters.generated.empty()) {
      dz = bench.output({n, in.filters.generated.cols()});
      dz_cut = bench.output({n, in.filters.generated.cols()}, Layout::strided);
    }
    if (before > 0) dhalo = bench.output({c.segments * before, channels}, Layout::strided);
    ops::conv_backward_input(bench.context(), dx, dz, {}, in.dy, in.x, in.filters, c.conv.shape,
                             in.rows);
    ops::conv_backward_input(bench.context(), dx_cut, dz_cut, dhalo, in.dy, in.x, in.filters,
                             c.conv.shape, rows);
    for (std::int64_t i = 0; i < c.segments * before; ++i) {
      const std::int64_t t = i / before * rows.length - before + i % before;
      for (std::int64_t d = 0; d < channels; ++d) {
        if (t < 0) {
          ASSERT_EQ(at(dhalo, i, d), 0) << "a gradient before the sequence";
        } else {
          dx_cut.row<float>(t)[d] += dhalo.row<float>(i)[d];
        }
      }
    }
    const std::int64_t terms = c.conv.shape.width * (c.conv.shape.filter_rank + 2);
    expect_near(dx, dx_cut, terms, largest(in.dy));
    if (!dz.empty()) {
      EXPECT_EQ(values(dz), values(dz_cut));
    }
  }
}

TEST(ConvHalo, EveryKindRefusesATapBeforeTheSegmentWithoutOne) {
  using enum FilterKind;
  Workbench bench;
  for (const ConvShape shape :
       {ConvShape{fixed, 3, 0, 0, true}, {headwise, 3, 0, 2, true}, {lowrank, 3, 4, 0, true}}) {
    const ConvCase c{shape, 2, 5, 6, {}};
    SCOPED_TRACE(c.name());
    const ArenaScope scope(bench.arena());
    ConvTensors in(bench, c, Layout::contiguous);
    in.rows.reach = bench.indices({0, 1, 2, 2, 2, 1, 1, 2, 2, 2});  // row 5 starts a segment
    Tensor y = bench.output({10, 6}), dx = bench.output({10, 6}), dz, du;
    if (!in.filters.generated.empty()) dz = bench.output({10, in.filters.generated.cols()});
    if (!in.filters.u.empty()) du = bench.zeros({4, 3, 6});
    Tensor ds = bench.zeros({3, 6});
    const Context run = bench.context();
    EXPECT_THROW(ops::conv_forward(run, y, in.x, in.filters, shape, in.rows), Error);
    EXPECT_THROW(ops::conv_backward_input(run, dx, dz, {}, in.dy, in.x, in.filters, shape, in.rows),
                 Error);
    EXPECT_THROW(ops::conv_backward_weight(run, ds, du, in.dy, in.x, in.filters, shape, in.rows),
                 Error);
  }
}

}  // namespace
}  // namespace convoy::test
