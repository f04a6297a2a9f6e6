// Memory and matmuls on a GPU.
#include "tests/core/gpu/device_bench.h"

namespace convoy::test {
namespace {

using MemoryOnGpu = GpuTest;
using MatmulOnGpu = GpuTest;

TEST_F(MemoryOnGpu, CopiesConvertsFillsAndAddsOnAnyStride) {
  for (const DType dtype : kAllDtypes) {
    for (const Layout layout : {Layout::contiguous, Layout::strided}) {
      for (const std::int64_t columns : {1, 7, 40}) {
        DeviceBench bench(dtype);
        const Tensor a = bench.random({13, columns}), b = bench.random({13, columns});
        const Tensor x = bench.upload(a, layout), z = bench.upload(b);
        EXPECT_EQ(bench.download(x), values(a));
        Tensor y = bench.output({13, columns}, layout);
        bench.backend().copy(y, x);
        EXPECT_EQ(bench.download(y), values(a));
        ops::add(bench.gpu(), y, x, z);
        Tensor sum = bench.host().output({13, columns});
        ops::add(bench.cpu(), sum, a, b);
        bench.expect_sum(y, sum, bench.magnitude(sum), 1, 0, "add");
        bench.backend().add_scaled(y, z, -0.5);
        const double u = 3 * unit_roundoff(dtype) + unit_roundoff(DType::f64);
        Tensor expected = bench.host().output({13, columns});
        Workbench::for_each(expected, [&](std::int64_t i, std::int64_t j, double) {
          return at(a, i, j) + 0.5 * at(b, i, j);
        });
        bench.expect_near(
            y, expected,
            [&](std::int64_t i, std::int64_t j) {
              return u * (std::abs(at(a, i, j)) + 2 * std::abs(at(b, i, j)));
            },
            "add_scaled");
        bench.backend().fill(y, 0.75);
        EXPECT_EQ(bench.download(y),
                  std::vector<double>(static_cast<std::size_t>(13 * columns), 0.75));
      }
    }
  }
}

struct Product {
  std::int64_t m, n, k;
};

void expect_products(DType dtype, DType result, NumericsMode mode) {
  const Product products[] = {{1, 1, 1},   {1, 7, 64},     {64, 64, 64},  {65, 33, 31},
                              {3, 257, 5}, {128, 200, 96}, {97, 40, 700}, {72, 1, 9}};
  for (const Product& p : products) {
    for (int variant = 0; variant < 16; ++variant) {
      const bool ta = (variant & 1) != 0, tb = (variant & 2) != 0, adds = (variant & 4) != 0;
      const Layout layout = (variant & 8) != 0 ? Layout::strided : Layout::contiguous;
      DeviceBench bench(dtype, mode);
      const Tensor a = ta ? bench.random({p.k, p.m}) : bench.random({p.m, p.k});
      const Tensor b = tb ? bench.random({p.n, p.k}) : bench.random({p.k, p.n});
      const Tensor before = bench.random_as(result, {p.m, p.n});
      const auto transpose = [](bool yes) { return yes ? Transpose::yes : Transpose::no; };
      const Accumulate accumulate = adds ? Accumulate::yes : Accumulate::no;
      Tensor expected = bench.host().output({p.m, p.n}), size = bench.host().output({p.m, p.n});
      copy_values(expected, before);
      copy_values(size, bench.magnitude(before));
      ops::matmul(bench.cpu(), expected, a, transpose(ta), b, transpose(tb), accumulate);
      ops::matmul(bench.cpu(), size, bench.magnitude(a), transpose(ta), bench.magnitude(b),
                  transpose(tb), accumulate);
      Tensor c = adds ? bench.upload_as(result, before, layout)
                      : bench.output_as(result, before.shape(), layout);
      ops::matmul(bench.gpu(), c, bench.upload(a, layout), transpose(ta), bench.upload(b, layout),
                  transpose(tb), accumulate);
      // Where bf16 is added to bf16, the library may round the product first.
      bench.expect_sum(c, expected, size, p.k, adds && result == DType::bf16 ? 1 : 0,
                       concat("matmul ", p.m, 'x', p.n, 'x', p.k, " variant ", variant));
    }
  }
}

TEST_F(MatmulOnGpu, EqualsTheReferenceInEveryLayoutInFastMode) {
  for (const DType dtype : kAllDtypes) expect_products(dtype, dtype, NumericsMode::fast);
}
TEST_F(MatmulOnGpu, AddsBf16ProductsToF32GradientsInFastMode) {
  expect_products(DType::bf16, DType::f32, NumericsMode::fast);
}
TEST_F(MatmulOnGpu, EqualsTheReferenceInEveryLayoutInInvariantMode) {
  for (const DType dtype : kAllDtypes) expect_products(dtype, dtype, NumericsMode::invariant);
  expect_products(DType::bf16, DType::f32, NumericsMode::invariant);
}

TEST_F(MatmulOnGpu, BitsOfARowDependOnThatRowAloneInInvariantMode) {
  for (const DType dtype : kAllDtypes) {
    DeviceBench bench(dtype, NumericsMode::invariant);
    const Tensor a = bench.upload(bench.random({150, 83})),
                 b = bench.upload(bench.random({40, 83}));
    Tensor all = bench.output({150, 40}), one = bench.output({1, 40});
    ops::matmul(bench.gpu(), all, a, Transpose::no, b, Transpose::yes);
    ops::matmul(bench.gpu(), one, a.row_range(97, 1), Transpose::no, b, Transpose::yes);
    EXPECT_EQ(bench.download(one), bench.download(all.row_range(97, 1)));
  }
}

}  // namespace
}  // namespace convoy::test
