#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

struct Sizes {
  std::int64_t m, n, k;
};

const Sizes kSizes[] = {{1, 1, 1},     {2, 3, 5},    {13, 33, 7},  {12, 32, 256},
                        {25, 65, 257}, {7, 530, 31}, {64, 48, 600}};

void expect_product(DType dtype, NumericsMode mode, Layout layout, bool accumulate) {
  for (const auto& [m, n, k] : kSizes) {
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        Workbench bench(dtype, mode);
        Tensor a = ta ? bench.random({k, m}, 1, layout) : bench.random({m, k}, 1, layout);
        Tensor b = tb ? bench.random({n, k}, 1, layout) : bench.random({k, n}, 1, layout);
        Tensor c = accumulate ? bench.random({m, n}, 1, layout) : bench.output({m, n}, layout);
        const auto before = values(c);
        ops::matmul(bench.context(), c, a, ta ? Transpose::yes : Transpose::no, b,
                    tb ? Transpose::yes : Transpose::no,
                    accumulate ? Accumulate::yes : Accumulate::no);
        for (std::int64_t i = 0; i < m; ++i) {
          for (std::int64_t j = 0; j < n; ++j) {
            double sum = accumulate ? before[static_cast<std::size_t>(i * n + j)] : 0;
            double magnitude = std::abs(sum);
            for (std::int64_t p = 0; p < k; ++p) {
              const double term =
                  (ta ? at(a, p, i) : at(a, i, p)) * (tb ? at(b, j, p) : at(b, p, j));
              sum += term;
              magnitude += std::abs(term);
            }
            ASSERT_NEAR(at(c, i, j), sum, sum_bound(dtype, k, magnitude))
                << m << 'x' << n << 'x' << k << ' ' << ta << tb << " at " << i << ", " << j;
          }
        }
      }
    }
  }
}

TEST(Matmul, OurKernelEqualsTheDefinitionForAllTransposes) {
  expect_product(DType::f64, NumericsMode::fast, Layout::contiguous, false);
  expect_product(DType::f32, NumericsMode::invariant, Layout::strided, false);
}
TEST(Matmul, TheLibraryEqualsTheDefinitionForAllTransposes) {
  expect_product(DType::f32, NumericsMode::fast, Layout::strided, false);
}
TEST(Matmul, AccumulatesWhereAsked) {
  expect_product(DType::f64, NumericsMode::fast, Layout::contiguous, true);
  expect_product(DType::f32, NumericsMode::fast, Layout::contiguous, true);
}

TEST(Matmul, InInvariantModeARowsBitsDependOnThatRowAlone) {
  Workbench bench(DType::f32, NumericsMode::invariant);
  Tensor a = bench.random({70, 301}), b = bench.random({77, 301});
  Tensor all = bench.output({70, 77});
  ops::matmul(bench.context(), all, a, Transpose::no, b, Transpose::yes);
  for (std::int64_t m = 1; m <= 70; ++m) {
    const ArenaScope scope(bench.arena());
    Tensor some = bench.output({m, 77});
    ops::matmul(bench.context(), some, a.row_range(70 - m, m), Transpose::no, b, Transpose::yes);
    ASSERT_EQ(values(some), values(all.row_range(70 - m, m))) << m << " rows";
  }
}

TEST(Matmul, ShapesThatDoNotFitAreNamed) {
  Workbench bench;
  try {
    ops::matmul(bench.context(), bench.output({2, 3}), bench.random({2, 4}), Transpose::no,
                bench.random({5, 3}), Transpose::no);
    FAIL();
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("f64[2, 4] * f64[5, 3] -> f64[2, 3]"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace convoy::test
