#include "experiments/comparison.h"

#include <gtest/gtest.h>

namespace convoy {
namespace {

RunRecord run(const std::string& arch, long long seed, double loss, double flops = 1e12) {
  RunRecord record;
  record.name = arch + "_" + std::to_string(seed);
  record.status = "done";
  record.arch = arch;
  record.seed = seed;
  record.steps = 100;
  record.flops = flops;
  record.val_loss = loss;
  record.val_bits_per_byte = 2 * loss;
  return record;
}

// Differences -0.10, -0.12, -0.14: mean -0.12, sd 0.02, half-width 4.302653 * 0.02 / sqrt(3).
TEST(Comparison, PairedDifferencesHaveTheIntervalComputedByHand) {
  const Comparison all =
      compare({run("plain", 0, 1.50), run("plain", 1, 1.60), run("plain", 2, 1.40),
               run("conv", 2, 1.26), run("conv", 0, 1.40), run("conv", 1, 1.48)});
  ASSERT_EQ(all.differences.size(), 1U);
  const PairedDifference& d = all.differences[0];
  EXPECT_EQ(d.arm, "conv");
  EXPECT_EQ(d.reference, "plain");
  EXPECT_EQ(d.loss.n, 3);
  EXPECT_NEAR(d.loss.mean, -0.12, 1e-12);
  EXPECT_NEAR(d.loss.sd.value(), 0.02, 1e-12);
  EXPECT_NEAR(d.loss.interval.value().low, -0.12 - 0.04968276, 1e-7);
  EXPECT_NEAR(d.loss.interval.value().high, -0.12 + 0.04968276, 1e-7);
  EXPECT_NEAR(d.bits_per_byte.mean, -0.24, 1e-12);
  EXPECT_TRUE(d.equal_flops);
  EXPECT_EQ(verdict(d.loss), "lower");
}

TEST(Comparison, OneSeedHasADifferenceWithoutSpread) {
  const Comparison all = compare({run("plain", 0, 1.5), run("conv", 0, 1.4)});
  ASSERT_EQ(all.differences.size(), 1U);
  EXPECT_NEAR(all.differences[0].loss.mean, -0.1, 1e-12);
  EXPECT_FALSE(all.differences[0].loss.interval.has_value());
  EXPECT_EQ(verdict(all.differences[0].loss), "one seed: no spread");
}

TEST(Comparison, AnIntervalAroundZeroIsATie) {
  const Comparison all = compare(
      {run("plain", 0, 1.5), run("plain", 1, 1.5), run("conv", 0, 1.4), run("conv", 1, 1.6)});
  EXPECT_EQ(verdict(all.differences.at(0).loss), "tied");
}

TEST(Comparison, UnfinishedFailedAndRepeatedRunsAreNamedAndLeftOut) {
  std::vector<RunRecord> runs;
  for (const char* status : {"running", "interrupted", "failed", "diverged"}) {
    runs.push_back(run("plain", 0, 9.0));
    runs.back().name = status;
    runs.back().status = status;
    runs.back().message = "out of memory";
  }
  runs.push_back(run("plain", 0, 1.5));
  runs.push_back(run("plain", 0, 1.6));
  runs.back().name = "again";
  runs.push_back(run("plain", 1, kUnknown));
  const Comparison all = compare(runs);
  ASSERT_EQ(all.exclusions.size(), 6U);
  EXPECT_NE(all.exclusions[0].reason.find("still running, or killed, at step 100"),
            std::string::npos);
  EXPECT_NE(all.exclusions[2].reason.find("failed at step 100: out of memory"), std::string::npos);
  EXPECT_EQ(all.exclusions[4].run, "again");
  EXPECT_NE(all.exclusions[5].reason.find("without a final validation"), std::string::npos);
  ASSERT_EQ(all.arms.size(), 1U);
  EXPECT_DOUBLE_EQ(all.arms[0].loss.mean, 1.5);
}

TEST(Comparison, SeedsWithoutAPartnerMakeNoPair) {
  const Comparison all = compare({run("plain", 0, 1.5), run("conv", 1, 1.4)});
  EXPECT_TRUE(all.differences.empty());
  ASSERT_EQ(all.exclusions.size(), 1U);
  EXPECT_NE(all.exclusions[0].reason.find("no seed in common"), std::string::npos);
}

// 100 steps: one step is 1 % of the FLOPs here.
TEST(Comparison, FlopsAreEqualWithinOnePercentOrOneStep) {
  const auto equal = [](double flops) {
    return compare({run("plain", 0, 1.5, 1e12), run("conv", 0, 1.4, flops)})
        .differences.at(0)
        .equal_flops;
  };
  EXPECT_TRUE(equal(1.009e12));
  EXPECT_FALSE(equal(1.02e12));
  EXPECT_FALSE(equal(0.97e12));
}

TEST(Comparison, ThroughputIsTheMedianOfTheSecondHalf) {
  RunRecord record;
  for (const double rate : {1.0, 2.0, 50.0, 70.0, 60.0}) {
    record.train.emplace_back();
    record.train.back().tokens_per_s = rate;
  }
  EXPECT_DOUBLE_EQ(steady_tokens_per_s(record), 60);
}

}  // namespace
}  // namespace convoy
