#include "tests/core/conv_case.h"

namespace convoy::test {
namespace {

void expect_formula(DType dtype, Layout layout) {
  for (const ConvCase& c : conv_cases()) {
    SCOPED_TRACE(c.name());
    Workbench bench(dtype);
    const ConvTensors in(bench, c, layout);
    Tensor y = bench.output({c.rows(), c.channels}, layout);
    ops::conv_forward(bench.context(), y, in.x, in.filters, c.shape, in.rows);
    const std::int64_t terms = (c.shape.filter_rank + 2) * c.shape.width;
    for (std::int64_t t = 0; t < c.rows(); ++t) {
      for (std::int64_t d = 0; d < c.channels; ++d) {
        const Expected e = expected_output(c, in, t, d);
        ASSERT_NEAR(at(y, t, d), e.value, sum_bound(dtype, terms, e.magnitude)) << t << ", " << d;
      }
    }
  }
}

TEST(ConvForward, EqualsItsFormulaInF64) { expect_formula(DType::f64, Layout::contiguous); }
TEST(ConvForward, EqualsItsFormulaInF32) { expect_formula(DType::f32, Layout::contiguous); }
TEST(ConvForward, ReadsAndWritesColumnsOfWiderMatrices) {
  expect_formula(DType::f32, Layout::strided);
}

TEST(ConvForward, ADocumentSeesNothingOfTheOneBeforeIt) {
  for (ConvCase c : conv_cases()) {
    if (c.document_lengths.size() < 2) continue;
    SCOPED_TRACE(c.name());
    Workbench bench;
    const ConvTensors in(bench, c, Layout::contiguous);
    Tensor y = bench.output({c.rows(), c.channels}), again = bench.output({c.rows(), c.channels});
    ops::conv_forward(bench.context(), y, in.x, in.filters, c.shape, in.rows);
    const std::int64_t first = c.document_lengths[0];
    Workbench::for_each(in.x.row_range(0, first),
                        [](std::int64_t, std::int64_t, double) { return 1e6; });
    ops::conv_forward(bench.context(), again, in.x, in.filters, c.shape, in.rows);
    for (std::int64_t t = first; t < c.length; ++t) {
      for (std::int64_t d = 0; d < c.channels; ++d) ASSERT_EQ(at(y, t, d), at(again, t, d)) << t;
    }
  }
}

TEST(ConvForward, ARowsBitsDoNotDependOnTheRowsAroundIt) {
  const ConvCase c{{FilterKind::lowrank, 4, 16, 0, true}, 1, 40, 48, {}};
  for (const DType dtype : {DType::f32, DType::f64}) {
    Workbench bench(dtype);
    const ConvTensors in(bench, c, Layout::contiguous);
    Tensor y = bench.output({40, 48});
    ops::conv_forward(bench.context(), y, in.x, in.filters, c.shape, in.rows);
    for (const std::int64_t length : {1, 5, 23, 39}) {
      ConvFilters filters = in.filters;
      filters.generated = filters.generated.row_range(0, length);
      const ConvRows rows{1, length, in.rows.reach.reshape({40, 1}).row_range(0, length), {}};
      Tensor part = bench.output({length, 48});
      ops::conv_forward(bench.context(), part, in.x.row_range(0, length), filters, c.shape,
                        {1, length, rows.reach.reshape({length}), {}});
      ASSERT_EQ(values(part), values(y.row_range(0, length))) << length;
    }
  }
}

TEST(ConvForward, ATapBeforeTheSegmentNeedsAHalo) {
  Workbench bench;
  const ConvCase c{{FilterKind::fixed, 3, 0, 0, true}, 1, 4, 2, {}};
  ConvTensors in(bench, c, Layout::contiguous);
  in.rows.reach = bench.indices({2, 2, 2, 2});
  Tensor y = bench.output({4, 2});
  EXPECT_THROW(ops::conv_forward(bench.context(), y, in.x, in.filters, c.shape, in.rows), Error);
}

}  // namespace
}  // namespace convoy::test
