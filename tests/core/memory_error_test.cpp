#include "core/null_backend.h"
#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

template <class Function>
std::string message_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Arena, AFullOneSaysItsNameWhatIsTakenAndWhatIsNeeded) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  Arena arena(*backend, "micro-batch", 1024);
  arena.take(DType::f32, {100});
  const std::string text = message_of([&] { arena.take(DType::f64, {200}); });
  for (const char* part : {"'micro-batch'", "1024 bytes", "512 bytes are taken", "1600 more"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
}

TEST(Arena, ReleasesToAMarkAndRemembersItsHighWater) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  Arena arena(*backend, "test", 4096);
  const Tensor first = arena.take(DType::f32, {3});
  {
    const ArenaScope scope(arena);
    const Tensor second = arena.take(DType::f32, {3});
    EXPECT_EQ(static_cast<std::byte*>(second.data()) - static_cast<std::byte*>(first.data()),
              static_cast<std::ptrdiff_t>(Arena::kAlignment));
  }
  EXPECT_EQ(arena.mark(), Arena::kAlignment);
  EXPECT_EQ(arena.high_water(), 2 * Arena::kAlignment);
}

TEST(Arena, AMeasuringOneCountsWithoutMemory) {
  NullBackend backend;
  Arena arena = Arena::measuring(backend, "plan");
  arena.take(DType::f32, {1 << 20, 1 << 10});
  EXPECT_EQ(arena.high_water(), std::size_t{1} << 32);
}

TEST(Check, NamesPlaceExpressionValuesRankAndBreadcrumb) {
  set_error_rank(3);
  const std::string text = message_of([] {
    const Doing step("step 12");
    const Doing action("micro-batch 5");
    const int a = 1;
    CHECK(a == 2, "a is ", a);
  });
  set_error_rank(-1);
  for (const char* part : {"core/memory_error_test.cpp:", "CHECK(a == 2)", "a is 1", "[rank 3]",
                           "[while: step 12 > micro-batch 5]"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in " << text;
  }
  EXPECT_EQ(Doing::breadcrumb(), "");
}

TEST(Operations, NameTheTensorThatDoesNotFit) {
  Workbench bench;
  Tensor x = bench.random({4, 6}), rstd = bench.output({4, 1});
  EXPECT_NE(message_of([&] {
              ops::rmsnorm_forward(bench.context(), bench.output({4, 5}), rstd, x,
                                   bench.random({6}), 1e-5);
            }).find("output of rmsnorm is f64[4, 5], expected 4 rows of 6"),
            std::string::npos);
  EXPECT_NE(
      message_of([&] {
        ops::rope(bench.context(), x, bench.indices({0, 1, 2}), 2, 1e4, RopeDirection::forward);
      }).find("positions is i32[3], expected 4"),
      std::string::npos);
  Workbench other(DType::f32);
  EXPECT_NE(message_of([&] {
              ops::add(bench.context(), bench.output({4, 6}), x, other.random({4, 6}));
            }).find("second addend is f32[4, 6], expected dtype f64"),
            std::string::npos);
  const Tensor elsewhere(x.data(), DType::f64, DeviceKind::cuda, {4, 6});
  EXPECT_NE(message_of([&] { ops::fill(bench.context(), elsewhere, 0); }).find("not on the device"),
            std::string::npos);
}

TEST(Tensor, ViewsShareMemoryAndKeepTheirStride) {
  Workbench bench;
  Tensor x = bench.random({5, 8});
  const Tensor part = x.row_range(1, 3).column_range(2, 4);
  EXPECT_EQ(part.describe(), "f64[3, 4]");
  EXPECT_EQ(part.row_stride(), 8);
  EXPECT_EQ(at(part, 2, 3), at(x, 3, 5));
  EXPECT_FALSE(part.contiguous());
  EXPECT_THROW(part.reshape({12}), Error);
  EXPECT_THROW(x.column_range(5, 4), Error);
  EXPECT_THROW(x.data<float>(), Error);
}

TEST(Copy, ConvertsBetweenRealDtypesAndKeepsStrides) {
  Workbench wide(DType::f64), narrow(DType::f32);
  Tensor from = wide.random({3, 5}, 1, Layout::strided);
  Tensor to = narrow.output({3, 5}, Layout::strided);
  narrow.backend().convert(to, from);
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t j = 0; j < 5; ++j) {
      EXPECT_EQ(at(to, i, j), static_cast<double>(static_cast<float>(at(from, i, j))));
    }
  }
}

}  // namespace
}  // namespace convoy::test
