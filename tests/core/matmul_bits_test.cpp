// The fixed-order matmul: its bits, and how far it and the library may lie apart.
#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

Transpose flag(bool yes) { return yes ? Transpose::yes : Transpose::no; }

struct Product {
  Tensor a, b;
  bool ta, tb;
  std::int64_t m, n, k;

  Product(Workbench& bench, std::int64_t rows, std::int64_t cols, std::int64_t depth,
          bool transpose_a, bool transpose_b, Layout layout)
      : ta(transpose_a), tb(transpose_b), m(rows), n(cols), k(depth) {
    a = ta ? bench.random({k, m}, 1, layout) : bench.random({m, k}, 1, layout);
    b = tb ? bench.random({n, k}, 1, layout) : bench.random({k, n}, 1, layout);
  }
  void into(const Context& context, const Tensor& c, Accumulate accumulate) const {
    ops::matmul(context, c, a, flag(ta), b, flag(tb), accumulate);
  }
  // `count` rows of op(a) from `begin` on.
  Tensor rows_of_a(std::int64_t begin, std::int64_t count) const {
    return ta ? a.column_range(begin, count) : a.row_range(begin, count);
  }
  double magnitude(std::int64_t i, std::int64_t j) const {
    double sum = 0;
    for (std::int64_t p = 0; p < k; ++p) {
      sum += std::abs((ta ? at(a, p, i) : at(a, i, p)) * (tb ? at(b, j, p) : at(b, p, j)));
    }
    return sum;
  }
};

// Rows [70 - m, 70) alone give the bits that they have among all 70.
void expect_row_bits(DType dtype, NumericsMode mode, Accumulate accumulate) {
  Workbench bench(dtype, mode);
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      const ArenaScope scope(bench.arena());
      const Product p(bench, 70, 77, 301, ta, tb, Layout::strided);
      const Tensor start = bench.random({70, 77});
      Tensor all = bench.output({70, 77});
      copy_values(all, start);
      p.into(bench.context(), all, accumulate);
      for (std::int64_t m = 1; m <= 70; ++m) {
        const ArenaScope inner(bench.arena());
        Tensor some = bench.output({m, 77});
        copy_values(some, start.row_range(70 - m, m));
        ops::matmul(bench.context(), some, p.rows_of_a(70 - m, m), flag(ta), p.b, flag(tb),
                    accumulate);
        ASSERT_EQ(values(some), values(all.row_range(70 - m, m))) << m << " rows " << ta << tb;
      }
    }
  }
}

TEST(FixedOrderMatmul, ARowsBitsDependOnThatRowAloneInF32) {
  expect_row_bits(DType::f32, NumericsMode::invariant, Accumulate::no);
  expect_row_bits(DType::f32, NumericsMode::invariant, Accumulate::yes);
}
TEST(FixedOrderMatmul, ARowsBitsDependOnThatRowAloneInF64WhateverTheMode) {
  expect_row_bits(DType::f64, NumericsMode::invariant, Accumulate::no);
  expect_row_bits(DType::f64, NumericsMode::fast, Accumulate::yes);
}

TEST(FixedOrderMatmul, AColumnsBitsDependOnThatColumnAlone) {
  Workbench bench(DType::f32, NumericsMode::invariant);
  const Product p(bench, 13, 75, 263, false, true, Layout::contiguous);
  Tensor all = bench.output({13, 75});
  p.into(bench.context(), all, Accumulate::no);
  for (const std::int64_t n : {1, 2, 15, 16, 17, 31, 33, 64, 74}) {
    Tensor some = bench.output({13, n}, Layout::strided);
    ops::matmul(bench.context(), some, p.a, Transpose::no, p.b.row_range(75 - n, n),
                Transpose::yes);
    ASSERT_EQ(values(some), values(all.column_range(75 - n, n))) << n << " columns";
  }
}

TEST(FixedOrderMatmul, BitsDoNotDependOnStridesOrOnHowOperandsAreStored) {
  Workbench bench(DType::f32, NumericsMode::invariant);
  const Product p(bench, 29, 41, 300, false, false, Layout::strided);
  Tensor a = bench.output({300, 29}), b = bench.output({41, 300});
  Workbench::for_each(a, [&](auto i, auto j, double) { return at(p.a, j, i); });
  Workbench::for_each(b, [&](auto i, auto j, double) { return at(p.b, j, i); });
  Tensor plain = bench.output({29, 41}, Layout::strided), turned = bench.output({29, 41});
  p.into(bench.context(), plain, Accumulate::no);
  ops::matmul(bench.context(), turned, a, Transpose::yes, b, Transpose::yes);
  EXPECT_EQ(values(plain), values(turned));
}

TEST(Matmul, TheLibraryAndOurKernelLieWithinBothTheirBounds) {
  for (const auto& [m, n, k] :
       {std::array<std::int64_t, 3>{1, 53, 97}, {67, 1, 31}, {37, 70, 515}}) {
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        Workbench fast(DType::f32, NumericsMode::fast), own(DType::f32, NumericsMode::invariant);
        const Product p(fast, m, n, k, ta, tb, Layout::contiguous);
        const Tensor start = fast.random({m, n});
        for (const auto accumulate : {Accumulate::no, Accumulate::yes}) {
          Tensor c = fast.output({m, n}), d = own.output({m, n});
          if (accumulate == Accumulate::yes) {
            copy_values(c, start);
            copy_values(d, start);
          }
          p.into(fast.context(), c, accumulate);
          p.into(own.context(), d, accumulate);
          for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t j = 0; j < n; ++j) {
              const double magnitude = p.magnitude(i, j) + std::abs(at(start, i, j));
              ASSERT_NEAR(at(c, i, j), at(d, i, j), 2 * sum_bound(DType::f32, k, magnitude));
            }
          }
        }
      }
    }
  }
}

// Only the columns of the view are written: what lies beside it keeps its NaN.
TEST(Matmul, WritesNothingBesideAViewOfColumns) {
  for (const auto mode : {NumericsMode::fast, NumericsMode::invariant}) {
    Workbench bench(DType::f32, mode);
    const Product p(bench, 19, 21, 33, false, false, Layout::strided);
    Tensor wide = bench.output({19, 40});
    p.into(bench.context(), wide.column_range(7, 21), Accumulate::no);
    for (std::int64_t i = 0; i < 19; ++i) {
      for (std::int64_t j = 0; j < 40; ++j) {
        ASSERT_EQ(std::isnan(at(wide, i, j)), j < 7 || j >= 28) << i << ", " << j;
      }
    }
  }
}

}  // namespace
}  // namespace convoy::test
