// A sequence cut into segments, each with the rows before it as a halo, must give what the uncut
// sequence gives; and the gradients of the halos, added to their owners' rows, the uncut gradient.
#include "tests/core/conv_case.h"

namespace convoy::test {
namespace {

struct Cut {
  ConvTensors whole;
  ConvRows rows;  // of the cut sequence, with halo
};

// Fills the halo of each segment with the rows before it (zeros before the first).
ConvRows cut_rows(Workbench& bench, const ConvCase& c, const ConvTensors& whole,
                  std::int64_t segments) {
  const std::int64_t length = c.length / segments;
  const std::int64_t before = c.shape.width - 1;
  Tensor halo = bench.zeros({segments * before, c.channels});
  for (std::int64_t s = 0; s < segments; ++s) {
    for (std::int64_t i = 0; i < before; ++i) {
      const std::int64_t t = s * length - before + i;
      if (t < 0) continue;
      copy_values(halo.row_range(s * before + i, 1), whole.x.row_range(t, 1));
    }
  }
  return {segments, length, whole.rows.reach, halo};
}

void expect_cut_equals_whole(const ConvCase& c, std::int64_t segments) {
  SCOPED_TRACE(concat(c.name(), " cut into ", segments));
  Workbench bench;
  const ConvTensors in(bench, c, Layout::contiguous);
  const ConvRows rows = cut_rows(bench, c, in, segments);
  const std::int64_t n = c.length, before = c.shape.width - 1;
  Tensor y = bench.output({n, c.channels}), y_cut = bench.output({n, c.channels});
  ops::conv_forward(bench.context(), y, in.x, in.filters, c.shape, in.rows);
  ops::conv_forward(bench.context(), y_cut, in.x, in.filters, c.shape, rows);
  EXPECT_EQ(values(y), values(y_cut));  // bit for bit

  Tensor dx = bench.output({n, c.channels}), dx_cut = bench.output({n, c.channels});
  Tensor dhalo = bench.output({segments * before, c.channels});
  Tensor dg, dg_cut;
  if (!in.filters.generated.empty()) {
    dg = bench.output({n, in.filters.generated.cols()});
    dg_cut = bench.output({n, in.filters.generated.cols()});
  }
  ops::conv_backward_input(bench.context(), dx, dg, {}, in.dy, in.x, in.filters, c.shape, in.rows);
  ops::conv_backward_input(bench.context(), dx_cut, dg_cut, dhalo, in.dy, in.x, in.filters, c.shape,
                           rows);
  for (std::int64_t s = 0; s < segments; ++s) {
    for (std::int64_t i = 0; i < before; ++i) {
      const std::int64_t t = s * rows.length - before + i;
      for (std::int64_t d = 0; d < c.channels; ++d) {
        const double returned = at(dhalo, s * before + i, d);
        if (t < 0) {
          ASSERT_EQ(returned, 0) << "a gradient before the sequence";
        } else {
          dx_cut.row<double>(t)[d] += returned;
        }
      }
    }
  }
  const auto a = values(dx), b = values(dx_cut);
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(a[i], b[i], sum_bound(DType::f64, 64, 1 + std::abs(a[i]))) << i;
  }
  if (!dg.empty()) {
    EXPECT_EQ(values(dg), values(dg_cut));
  }
}

TEST(ConvHalo, ACutSequenceEqualsTheWhole) {
  using enum FilterKind;
  for (const std::int64_t segments : {2, 3, 6}) {
    expect_cut_equals_whole({{fixed, 4, 0, 0, true}, 1, 24, 19, {}}, segments);
    expect_cut_equals_whole({{headwise, 3, 0, 4, false}, 1, 24, 16, {10, 1, 13}}, segments);
    expect_cut_equals_whole({{lowrank, 4, 5, 0, true}, 1, 24, 33, {11, 13}}, segments);
  }
}

TEST(ConvHalo, ASegmentMayBeShorterThanTheHalo) {
  expect_cut_equals_whole({{FilterKind::lowrank, 7, 3, 0, true}, 1, 16, 5, {}}, 8);
  expect_cut_equals_whole({{FilterKind::fixed, 8, 0, 0, true}, 1, 12, 5, {9, 3}}, 12);
}

}  // namespace
}  // namespace convoy::test
