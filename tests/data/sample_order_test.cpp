#include "data/sample_order.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

#include "data/source_mix.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

std::vector<std::int64_t> epoch_of(const SampleOrder& order, std::int64_t windows,
                                   std::int64_t epoch) {
  std::vector<std::int64_t> result;
  for (std::int64_t i = 0; i < windows; ++i) result.push_back(order.window(epoch * windows + i));
  return result;
}

TEST(SampleOrder, VisitsEveryWindowOnceInEachEpoch) {
  for (const std::int64_t windows : {1, 2, 3, 4, 5, 7, 16, 17, 100, 1000, 4097}) {
    const SampleOrder order(3, windows);
    for (const std::int64_t epoch : {0, 1, 1000}) {
      const auto visited = epoch_of(order, windows, epoch);
      EXPECT_EQ(std::set(visited.begin(), visited.end()).size(), visited.size()) << windows;
      EXPECT_GE(*std::min_element(visited.begin(), visited.end()), 0);
      EXPECT_LT(*std::max_element(visited.begin(), visited.end()), windows);
    }
  }
}

TEST(SampleOrder, IsAFunctionOfSeedAndIndexAlone) {
  const SampleOrder order(3, 1000), again(3, 1000);
  const auto forward = epoch_of(order, 1000, 2);
  for (std::int64_t i = 999; i >= 0; --i)  // asked backwards, of another object
    EXPECT_EQ(again.window(2000 + i), forward[static_cast<std::size_t>(i)]);
}

TEST(SampleOrder, DiffersBetweenSeedsAndEpochs) {
  const auto first = epoch_of(SampleOrder(3, 1000), 1000, 0);
  EXPECT_NE(first, epoch_of(SampleOrder(3, 1000), 1000, 1));
  EXPECT_NE(first, epoch_of(SampleOrder(4, 1000), 1000, 0));
}

// Neighbours of a shuffled list differ by a third of its length on average, and a window's place
// in one epoch says nothing of its place in the next.
TEST(SampleOrder, LooksShuffled) {
  constexpr std::int64_t kWindows = 10'000;
  const SampleOrder order(7, kWindows);
  double distance = 0, product = 0;
  for (std::int64_t i = 0; i + 1 < kWindows; ++i) {
    distance += static_cast<double>(std::abs(order.window(i + 1) - order.window(i)));
    product += (static_cast<double>(order.window(i)) / kWindows - 0.5) *
               (static_cast<double>(order.window(kWindows + i)) / kWindows - 0.5);
  }
  EXPECT_NEAR(distance / kWindows / kWindows, 1.0 / 3, 0.02);
  EXPECT_NEAR(product / kWindows * 12, 0, 0.05);  // correlation: the variance is 1/12
}

TEST(SourceMix, GivesEachSourceItsShare) {
  const std::vector<double> weights{2, 1, 1.5};
  const SourceMix mix(weights, 5);
  EXPECT_EQ(mix.places(0), 455);  // 1024 * 2 / 4.5 = 455.1
  EXPECT_EQ(mix.places(1), 228);  // 227.6: the largest remainder
  EXPECT_EQ(mix.places(2), 341);  // 341.3
}

TEST(SourceMix, CountsTheSamplesOfEachSourceWithoutGaps) {
  const std::vector<double> weights{0.3, 0.7};
  const SourceMix mix(weights, 5);
  std::vector<std::int64_t> next(2, 0);
  for (std::int64_t i = 0; i < 3 * SourceMix::kPeriod; ++i) {
    const auto [source, index] = mix.sample(i);
    EXPECT_EQ(index, next[static_cast<std::size_t>(source)]++);
  }
  EXPECT_EQ(next[0], 3 * mix.places(0));
}

TEST(SourceMix, OfOneSourceChangesNothing) {
  const std::vector<double> weights{0.5};
  const SourceMix mix(weights, 5);
  EXPECT_EQ(mix.sample(5000).index, 5000);
}

TEST(SourceMix, RefusesWeightsThatMeanNothing) {
  const std::vector<double> zero{1, 0}, tiny{1, 1e-5};
  expect_error("weights must be positive", [&] { SourceMix(zero, 1); });
  expect_error("less than one sample in 1024", [&] { SourceMix(tiny, 1); });
}

}  // namespace
}  // namespace convoy
