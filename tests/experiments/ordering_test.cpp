#include "experiments/fit/ordering.h"

#include <gtest/gtest.h>

#include "tests/experiments/planted_runs.h"

namespace convoy {
namespace {

// One size, three seeds, losses as given.
void add(std::vector<RunRow>& runs, const std::string& arm, double n,
         const std::vector<double>& loss) {
  for (std::size_t seed = 0; seed < loss.size(); ++seed)
    runs.push_back(testing::planted_run(arm, n, 20 * n, static_cast<long long>(seed), loss[seed]));
}

std::vector<RunRow> three_arms() {
  std::vector<RunRow> runs;
  add(runs, "qkv", 1e6, {3.00, 3.10, 2.90});
  add(runs, "kv", 1e6, {3.10, 3.21, 3.01});  // 0.10, 0.11, 0.11 above
  add(runs, "qv", 1e6, {3.12, 3.19, 3.02});  // +0.02, -0.02, +0.01 from kv
  return runs;
}

const OrderedPair& pair_of(const std::vector<OrderedPair>& pairs, const std::string& a,
                           const std::string& b) {
  for (const OrderedPair& pair : pairs)
    if (pair.better == a && pair.worse == b) return pair;
  throw Error("no pair " + a + ", " + b);
}

// Differences 0.10, 0.11, 0.11: mean 0.106667, sd 0.0057735, half-width 4.302653 sd / sqrt(3).
TEST(Ordering, PairsAreOrderedReversedOrTiedByTheirPairedInterval) {
  const auto as_expected = orderings(three_arms(), {"qkv", "kv", "qv"});
  ASSERT_EQ(as_expected.size(), 3U);
  const OrderedPair& clear = pair_of(as_expected, "qkv", "kv");
  EXPECT_EQ(clear.verdict, "ordered");
  EXPECT_NEAR(clear.difference.mean, 0.32 / 3, 1e-12);
  EXPECT_NEAR(clear.difference.interval.value().low, 0.32 / 3 - 0.0143422, 1e-6);
  EXPECT_EQ(pair_of(as_expected, "kv", "qv").verdict, "tied");
  EXPECT_EQ(pair_of(orderings(three_arms(), {"kv", "qkv"}), "kv", "qkv").verdict, "reversed");
}

TEST(Ordering, WithoutAnExpectationTheObservedOrderIsTested) {
  const auto pairs = orderings(three_arms(), {});
  EXPECT_EQ(pair_of(pairs, "qkv", "kv").verdict, "ordered");
  EXPECT_EQ(pair_of(pairs, "kv", "qv").verdict, "tied");
}

TEST(Ordering, OverSeveralSizesTheSizeIsTheUnit) {
  std::vector<RunRow> runs = three_arms();
  add(runs, "qkv", 4e6, {2.50, 2.50, 2.50});
  add(runs, "kv", 4e6, {2.52, 2.52, 2.52});
  const auto pairs = orderings(runs, {"qkv", "kv"});
  ASSERT_EQ(pairs.size(), 3U);
  EXPECT_EQ(pairs[0].verdict, "ordered");
  EXPECT_EQ(pairs[1].verdict, "ordered");
  EXPECT_EQ(pairs[2].size, "");
  EXPECT_EQ(pairs[2].difference.n, 2);
  EXPECT_EQ(pairs[2].verdict, "tied") << "two sizes, 0.107 and 0.02: t = 12.7 spans 0";
}

TEST(Ordering, OneSeedHasNoSpreadAndAnUnknownArmIsRefused) {
  std::vector<RunRow> runs;
  add(runs, "a", 1e6, {3.0});
  add(runs, "b", 1e6, {3.1});
  EXPECT_EQ(orderings(runs, {}).at(0).verdict, "one seed: no spread");
  EXPECT_THROW(orderings(runs, {"a", "c"}), Error);
}

}  // namespace
}  // namespace convoy
