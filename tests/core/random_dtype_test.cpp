#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

constexpr std::uint64_t kDraws = 200000;

// Mean of a function of the draws; its standard error is sigma / sqrt(draws).
double mean_of(const std::function<double(std::uint64_t)>& draw) {
  double total = 0;
  for (std::uint64_t i = 0; i < kDraws; ++i) total += draw(i);
  return total / static_cast<double>(kDraws);
}

TEST(RandomStream, NormalsHaveTheMomentsOfANormal) {
  const RandomStream r(1, "a");
  const double error = 5 / std::sqrt(static_cast<double>(kDraws));  // five standard errors
  EXPECT_NEAR(mean_of([&](auto i) { return r.normal(i); }), 0, error);
  EXPECT_NEAR(mean_of([&](auto i) { return std::pow(r.normal(i), 2); }), 1, std::sqrt(2) * error);
  EXPECT_NEAR(mean_of([&](auto i) { return std::pow(r.normal(i), 4); }), 3, std::sqrt(96) * error);
}

TEST(RandomStream, UniformsFillTheUnitInterval) {
  const RandomStream r(1, "a");
  const double error = 5 / std::sqrt(static_cast<double>(kDraws));
  EXPECT_NEAR(mean_of([&](auto i) { return r.uniform(i); }), 0.5, error / std::sqrt(12));
  EXPECT_NEAR(mean_of([&](auto i) { return r.uniform(i) < 0.1 ? 1.0 : 0.0; }), 0.1, 0.3 * error);
  for (std::uint64_t i = 0; i < 1000; ++i) {
    ASSERT_GE(r.uniform(i), 0);
    ASSERT_LT(r.uniform(i), 1);
  }
}

TEST(RandomStream, SeedsNamesAndIndicesAreIndependent) {
  const RandomStream a(1, "a"), b(1, "b"), c(2, "a");
  const double error = 5 / std::sqrt(static_cast<double>(kDraws));
  EXPECT_NEAR(mean_of([&](auto i) { return a.normal(i) * b.normal(i); }), 0, error);
  EXPECT_NEAR(mean_of([&](auto i) { return a.normal(i) * c.normal(i); }), 0, error);
  EXPECT_NEAR(mean_of([&](auto i) { return a.normal(i) * a.normal(i + 1); }), 0, error);
}

TEST(RandomStream, AValueDependsOnItsIndexAlone) {
  EXPECT_EQ(RandomStream(7, "x").bits(123456789012), RandomStream(7, "x").bits(123456789012));
  EXPECT_NE(RandomStream(7, "x").bits(5), RandomStream(7, "x").bits(5 + (std::uint64_t{1} << 32)));
}

TEST(BF16, RoundsToNearestEvenAndKeepsNaN) {
  const auto round_trip = [](float x) { return static_cast<float>(BF16(x)); };
  EXPECT_EQ(round_trip(1.0f), 1.0f);
  EXPECT_EQ(round_trip(1.0f + 0x1p-8f), 1.0f);                // a tie: to even
  EXPECT_EQ(round_trip(1.0f + 3 * 0x1p-8f), 1.0f + 0x1p-6f);  // a tie: to even, upwards
  EXPECT_EQ(round_trip(1.0f + 0x1p-8f + 0x1p-20f), 1.0f + 0x1p-7f);
  EXPECT_EQ(round_trip(-std::numeric_limits<float>::infinity()),
            -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(round_trip(std::nanf(""))));
  for (float x = 1e-30f; x < 1e30f; x *= 1.37f) {
    ASSERT_NEAR(round_trip(x), x, unit_roundoff(DType::bf16) * static_cast<double>(x));
  }
}

}  // namespace
}  // namespace convoy::test
