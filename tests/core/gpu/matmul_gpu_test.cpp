// Memory and matmuls on a GPU.
#include "core/matmul_choices.h"
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

// Tables of weights and of states are larger than what goes through device memory at once.
TEST_F(MemoryOnGpu, ConvertsMoreThanItTakesAtOnceBetweenHostAndDevice) {
  constexpr std::int64_t kRows = 700, kColumns = 6'101;  // 4.3 million: a piece and some
  DeviceBench bench(DType::f32);
  Backend& gpu = bench.backend();
  std::vector<double> given(static_cast<std::size_t>(kRows * kColumns));
  for (std::size_t i = 0; i < given.size(); ++i) given[i] = static_cast<double>(i % 8191) - 4095;
  const Tensor host(given.data(), DType::f64, DeviceKind::cpu, {kRows, kColumns});
  for (const Layout layout : {Layout::contiguous, Layout::strided}) {
    Tensor there = bench.output({kRows, kColumns}, layout);
    gpu.convert(there, host);
    std::vector<double> back(given.size(), -1);
    gpu.convert(Tensor(back.data(), DType::f64, DeviceKind::cpu, {kRows, kColumns}), there);
    EXPECT_EQ(back, given) << (layout == Layout::strided ? "strided" : "contiguous");
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

TEST_F(MatmulOnGpu, AddsAResidualInOnePass) {
  for (const NumericsMode mode : {NumericsMode::fast, NumericsMode::invariant}) {
    for (const DType dtype : kAllDtypes) {
      for (const Layout layout : {Layout::contiguous, Layout::strided}) {
        DeviceBench bench(dtype, mode);
        const std::int64_t m = 72, n = 48, k = 160;
        const Tensor a = bench.random({m, k}), b = bench.random({n, k});
        const Tensor residual = bench.random({m, n});
        Tensor expected = bench.host().output({m, n}), size = bench.host().output({m, n});
        ops::matmul_add(bench.cpu(), expected, a, Transpose::no, b, Transpose::yes, residual);
        ops::matmul_add(bench.cpu(), size, bench.magnitude(a), Transpose::no, bench.magnitude(b),
                        Transpose::yes, bench.magnitude(residual));
        Tensor c = bench.output({m, n}, layout);
        const Tensor added = bench.upload(residual, Layout::contiguous);
        ops::matmul_add(bench.gpu(), c, bench.upload(a), Transpose::no, bench.upload(b),
                        Transpose::yes, added);
        bench.expect_sum(c, expected, size, k, 1, "matmul with a residual");
        EXPECT_EQ(bench.download(added), values(residual));
      }
    }
  }
}

// What was measured is what a run takes, and its bits are the same every time.
TEST_F(MatmulOnGpu, ATableOfMeasuredChoicesIsTaken) {
  DeviceBench bench(DType::bf16);
  const Tensor a = bench.upload(bench.random({640, 256})),
               b = bench.upload(bench.random({384, 256}));
  const auto choices = std::make_shared<MatmulChoices>();
  const auto product = [&](MeasureMatmuls measure) {
    const auto backend = make_cuda_backend(NumericsMode::fast, 0);
    backend->use_matmul_choices(choices, measure);
    Tensor c = bench.output({640, 384});
    bench.backend().synchronize();
    backend->matmul(c, a, Transpose::no, b, Transpose::yes, Accumulate::no);
    backend->synchronize();
    return bench.download(c);
  };
  const auto measured = product(MeasureMatmuls::yes);
  ASSERT_EQ(choices->all().size(), 1u);
  const auto [key, choice] = *choices->all().begin();
  EXPECT_GT(choice.seconds, 0);
  EXPECT_LE(choice.seconds, choice.unasked_seconds);
  EXPECT_EQ(product(MeasureMatmuls::no), measured);
  choices->set(key, {std::string(choice.algorithm.size(), 'f'), 1e-6, 1e-6});
  EXPECT_THROW(product(MeasureMatmuls::no), Error);
}

TEST_F(MatmulOnGpu, SumsAreTheSameEveryTime) {
  DeviceBench bench(DType::f64);
  for (const std::int64_t count : {1, 1023, 65536}) {
    const Tensor x = bench.random({count});
    const Tensor gx = bench.upload(x);
    Tensor total = bench.output({1}), again = bench.output({1}),
           expected = bench.host().output({1});
    bench.cpu().backend.sum(expected, x);
    bench.backend().sum(total, gx);
    bench.backend().sum(again, gx);
    double size = 0;
    for (const double value : values(x)) size += std::abs(value);
    bench.expect_near(
        total, expected,
        [&](std::int64_t, std::int64_t) {
          return 2 * static_cast<double>(count) * unit_roundoff(DType::f64) * size;
        },
        "sum");
    EXPECT_EQ(bench.download(total), bench.download(again));
  }
}

// More copies than the ring that they pass through has pieces; the host's values change at once.
TEST_F(MatmulOnGpu, HostValuesMayChangeAfterACopy) {
  DeviceBench bench(DType::f64);
  constexpr std::int64_t kCopies = 100;
  Tensor on_device = bench.output({kCopies, 1000});
  std::vector<double> host(1000);
  for (std::int64_t i = 0; i < kCopies; ++i) {
    std::fill(host.begin(), host.end(), static_cast<double>(i));
    bench.backend().copy(on_device.row_range(i, 1),
                         Tensor(host.data(), DType::f64, DeviceKind::cpu, {1, 1000}));
  }
  const auto found = bench.download(on_device);
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::size_t row = i / 1000;
    ASSERT_EQ(found[i], static_cast<double>(row));
  }
}

}  // namespace
}  // namespace convoy::test
