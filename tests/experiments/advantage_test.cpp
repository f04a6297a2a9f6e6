#include "experiments/fit/advantage.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "experiments/fit/compare_arms.h"
#include "experiments/fit/minimize.h"
#include "tests/experiments/planted_runs.h"

namespace convoy {
namespace {

using testing::Ladder;
using testing::of_arm;
using testing::planted_ladder;

class AdvantageOfArms : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_minimizer()) GTEST_SKIP() << "built without Ceres";
  }
};

JointFit joint_of(const std::vector<RunRow>& runs) {
  return joint_advantage(seed_means(of_arm(runs, "plain")), seed_means(of_arm(runs, "conv")));
}

struct Coverage {
  double covered = 0;       // share of the draws
  double half_width = 0;    // median, in ln M
  double scale_alarms = 0;  // share of the draws with p < 0.05
};

Coverage coverage_of(double advantage, const Ladder& ladder, int draws) {
  Coverage result;
  std::vector<double> half_widths;
  for (int draw = 0; draw < draws; ++draw) {
    const JointFit joint = joint_of(planted_ladder(advantage, ladder, 1000 + draw));
    if (!joint.advantage.interval) continue;
    const Interval interval = *joint.advantage.interval;
    const bool inside = interval.low <= advantage && advantage <= interval.high;
    result.covered += inside ? 1.0 / draws : 0;
    result.scale_alarms += joint.scale.p < 0.05 ? 1.0 / draws : 0;
    half_widths.push_back(std::log(interval.high / interval.low) / 2);
  }
  result.half_width = median(half_widths);
  return result;
}

TEST_F(AdvantageOfArms, IntervalsCoverThePlantedAdvantageAndAreNarrow) {
  for (const double advantage : {1.33, 1.60}) {
    const Coverage coverage = coverage_of(advantage, {.seed_sd = 0.003}, 200);
    EXPECT_GE(coverage.covered, 0.90) << advantage;
    EXPECT_LE(coverage.covered, 0.99) << advantage;
    EXPECT_LE(coverage.half_width, 0.03) << advantage;
    EXPECT_GT(coverage.half_width, 0.01) << advantage;
    // A test at 5 %: 200 draws of it give 5 +- 1.5 %.
    EXPECT_LE(coverage.scale_alarms, 0.05 + 3 * 0.0154) << advantage;
    const int percent = static_cast<int>(100 * advantage);
    RecordProperty(concat("covered_at_", percent), concat(coverage.covered));
    RecordProperty(concat("half_width_at_", percent), concat(coverage.half_width));
    RecordProperty(concat("scale_alarms_at_", percent), concat(coverage.scale_alarms));
  }
}

// Independent seeds would make these intervals too narrow by sqrt(1 + 3).
TEST_F(AdvantageOfArms, IntervalsCoverWhereSeedsShareAnErrorOfTheirSize) {
  const Coverage coverage = coverage_of(1.33, {.seed_sd = 0.003, .size_sd = 0.003}, 200);
  EXPECT_GE(coverage.covered, 0.90);
  EXPECT_LE(coverage.covered, 0.99);
}

TEST_F(AdvantageOfArms, WithoutNoiseAllThreeEstimatorsFindIt) {
  // The planted curve is a sum of two powers and the fitted one a single power, so that even
  // without noise the fits are off by what that shape leaves over; interpolation by its chords.
  const auto runs = planted_ladder(1.33, {.seeds = 1}, 0);
  const auto reference = seed_means(of_arm(runs, "plain"));
  const auto arm = seed_means(of_arm(runs, "conv"));
  EXPECT_NEAR(joint_advantage(reference, arm).advantage.estimate, 1.33, 0.002);
  const auto separate = separate_advantage(reference, arm);
  ASSERT_EQ(separate.size(), 5U);
  for (const Advantage& advantage : separate) EXPECT_NEAR(advantage.estimate, 1.33, 0.005);
  const auto interpolated = interpolated_advantage(reference, arm);
  for (std::size_t i = 0; i < 4; ++i) {
    // A chord over h = ln 200 / 4 with curvature (0.127 - 0.102) / ln 200 of ln L is off by at most
    // h^2/8 of it, over the least slope 0.102.
    const double h = std::log(200.0) / 4;
    EXPECT_NEAR(std::log(interpolated[i].estimate), std::log(1.33),
                h * h / 8 * (0.127 - 0.102) / std::log(200.0) / 0.102);
  }
  EXPECT_TRUE(std::isnan(interpolated[4].estimate));
  EXPECT_NE(interpolated[4].note.find("outside"), std::string::npos);
  EXPECT_NEAR(mean_interpolated(interpolated).estimate, 1.33, 0.02);
}

TEST_F(AdvantageOfArms, SeparateFitsHaveIntervalsThatCover) {
  int covered = 0, counted = 0;
  for (int draw = 0; draw < 60; ++draw) {
    const auto runs = planted_ladder(1.33, {.budgets = 7, .seed_sd = 0.003}, 5000 + draw);
    const auto separate =
        separate_advantage(seed_means(of_arm(runs, "plain")), seed_means(of_arm(runs, "conv")));
    for (const Advantage& advantage : separate) {
      if (!advantage.interval) continue;
      ++counted;
      covered += advantage.interval->low <= 1.33 && 1.33 <= advantage.interval->high ? 1 : 0;
    }
  }
  // Budgets of one draw are correlated, so the 420 are worth some 100: 95 % +- 3 x 2.2 %.
  EXPECT_GT(counted, 400);
  EXPECT_GE(covered, 0.88 * counted);
}

TEST_F(AdvantageOfArms, AnAdvantageThatChangesWithScaleIsNoticed) {
  const Coverage coverage = coverage_of(1.33, {.seed_sd = 0.001, .slope = 0.15}, 40);
  EXPECT_GE(coverage.scale_alarms, 0.9);
  const ScaleTest test =
      joint_of(planted_ladder(1.33, {.seed_sd = 0.0002, .slope = 0.15}, 1)).scale;
  ASSERT_TRUE(test.interval.has_value());
  EXPECT_GT(test.interval->low, 0);
}

TEST_F(AdvantageOfArms, TooFewSizesGiveTheReasonInsteadOfANumber) {
  const JointFit joint = joint_of(planted_ladder(1.33, {.budgets = 2, .seed_sd = 0.003}, 0));
  EXPECT_TRUE(std::isnan(joint.advantage.estimate));
  EXPECT_FALSE(joint.advantage.interval.has_value());
  EXPECT_NE(joint.advantage.note.find("too few points: 2 sizes"), std::string::npos);
  EXPECT_NE(joint.scale.note.find("too few"), std::string::npos);
}

TEST_F(AdvantageOfArms, ClockAndOverheadFollowFromTheTable) {
  Runs table{.rows = planted_ladder(1.33, {.seed_sd = 0.001}, 3), .has_flops = true};
  for (RunRow& run : table.rows) {
    const bool conv = run.arch == "conv";
    if (conv) run.D /= 1.05;                         // 5 % more FLOPs per token at equal C
    run.wall_s = run.C / 1e12 / (conv ? 0.8 : 1.0);  // at 0.8 of the reference's FLOP/s
    run.device = "cpu";
  }
  const ArmComparison comparison = compare_arms(table, {.reference = "plain"});
  ASSERT_EQ(comparison.arms.size(), 1U);
  const ArmAdvantage& arm = comparison.arms[0];
  const double m = arm.joint.advantage.estimate;
  EXPECT_NEAR(m, 1.33, 0.03);
  EXPECT_NEAR(arm.cost.mean_overhead, 0.05, 1e-12);
  EXPECT_NEAR(arm.without_cost.estimate, 1.05 * m, 1e-9);
  EXPECT_NEAR(arm.wall_clock.estimate, 0.8 * m, 1e-9);
  ASSERT_EQ(arm.cost.sizes.size(), 5U);
  EXPECT_NEAR(arm.cost.sizes[0].speed_ratio, 0.8, 1e-12);
  ASSERT_TRUE(arm.wall_clock.interval.has_value());
  EXPECT_LT(arm.wall_clock.interval->low, 0.8 * m);

  for (RunRow& run : table.rows)
    if (run.arch == "conv") run.device = "gpu";
  table.has_flops = false;
  const ArmComparison mixed = compare_arms(table, {.reference = "plain"});
  EXPECT_NE(mixed.arms[0].wall_clock.note.find("several devices"), std::string::npos);
  EXPECT_NE(mixed.arms[0].without_cost.note.find("6 N D"), std::string::npos);
}

TEST_F(AdvantageOfArms, UnusableRunsAreNamedAndDoNotMoveTheResult) {
  Runs table{.rows = planted_ladder(1.33, {.seed_sd = 0.003}, 9), .has_flops = true};
  const auto clean = compare_arms(table, {.reference = "plain"});
  for (const char* status : {"diverged", "running", "done"}) {
    RunRow run = table.rows[17];
    run.loss = 9;
    run.status = status;
    if (run.status != "done") run.run_id = status;
    table.rows.push_back(run);
  }
  const auto with = compare_arms(table, {.reference = "plain"});
  ASSERT_EQ(with.exclusions.size(), 3U);
  EXPECT_EQ(with.exclusions[0].reason, "diverged");
  EXPECT_NE(with.exclusions[1].reason.find("unfinished"), std::string::npos);
  EXPECT_NE(with.exclusions[2].reason.find("duplicate"), std::string::npos);
  EXPECT_EQ(with.arms[0].joint.advantage.estimate, clean.arms[0].joint.advantage.estimate);
}

TEST_F(AdvantageOfArms, OneArmIsNoComparisonAndAnUnknownReferenceIsNamed) {
  const Runs all{.rows = planted_ladder(1.33, {}, 0)};
  const Runs one{.rows = of_arm(all.rows, "plain")};
  EXPECT_THROW(compare_arms(one, {}), Error);
  EXPECT_THROW(compare_arms(all, {.reference = "gru"}), Error);
  EXPECT_EQ(compare_arms(all, {}).reference, "plain");
}

}  // namespace
}  // namespace convoy
