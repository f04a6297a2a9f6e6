#include <gtest/gtest.h>

#include "experiments/fit/screening.h"
#include "experiments/fit/units.h"
#include "tests/experiments/planted_runs.h"

namespace convoy {
namespace {

using testing::planted_run;

TEST(Screening, DivergedUnfinishedAndDuplicateRunsAreEachNamed) {
  std::vector<RunRow> runs;
  for (long long seed = 0; seed < 7; ++seed) runs.push_back(planted_run("a", 1e6, 2e7, seed, 4));
  runs[1].status = "diverged";
  runs[2].status = "running";
  runs[3].loss = std::numeric_limits<double>::quiet_NaN();
  runs[4].loss = std::numeric_limits<double>::infinity();
  runs[5].seed = 0;  // another id, the same experiment
  runs[6].run_id = runs[0].run_id;
  const Screened screened = screen(runs);
  ASSERT_EQ(screened.runs.size(), 1U);
  EXPECT_EQ(screened.runs[0].run_id, runs[0].run_id);
  ASSERT_EQ(screened.exclusions.size(), 6U);
  const char* reasons[] = {
      "diverged",        "unfinished: its status is running", "no final loss",
      "its loss is inf", "duplicate of a-1e+06-2e+07-s0",     "repeats the run_id"};
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_NE(screened.exclusions[i].reason.find(reasons[i]), std::string::npos)
        << screened.exclusions[i].reason;
    EXPECT_EQ(screened.exclusions[i].run, runs[i + 1].run_id);
  }
}

TEST(Screening, BranchesAndSeedsAreNoDuplicates) {
  std::vector<RunRow> runs = {planted_run("a", 1e6, 2e7, 0, 4), planted_run("a", 1e6, 4e7, 0, 3.9),
                              planted_run("a", 1e6, 2e7, 1, 4), planted_run("b", 1e6, 2e7, 0, 4)};
  EXPECT_EQ(screen(runs).runs.size(), 4U);
  for (RunRow& run : runs) run.seed.reset();
  EXPECT_EQ(screen(runs).runs.size(), 3U) << "without seeds an equal loss is a copy";
}

TEST(Screening, SeveralArmsAreNotFittedAsOne) {
  const std::vector<RunRow> runs = {planted_run("a", 1e6, 2e7, 0, 4),
                                    planted_run("b", 1e6, 2e7, 0, 4)};
  EXPECT_THROW(runs_of_arm(runs, ""), Error);
  EXPECT_THROW(runs_of_arm(runs, "c"), Error);
  EXPECT_EQ(runs_of_arm(runs, "b").size(), 1U);
}

TEST(Screening, FlopsOfTwoConventionsAreNeverMixed) {
  std::vector<RunRow> runs = {planted_run("a", 1e6, 2e7, 0, 4), planted_run("a", 2e6, 4e7, 0, 4)};
  runs[0].flop_convention = runs[1].flop_convention = "parts";
  EXPECT_NO_THROW(check_conventions(runs));
  runs[1].flop_convention = "6n";
  EXPECT_THROW(check_conventions(runs), Error);
}

// ln loss 0 and 2 with one size, 1 with the other: means 1 and 1, noise sqrt(2) with one freedom.
TEST(Units, SeedsOfOneSizeAreOnePointAndGiveTheNoise) {
  const std::vector<RunRow> runs = {planted_run("a", 1e6, 2e7, 0, 1),
                                    planted_run("a", 1e6, 2e7, 1, std::exp(2)),
                                    planted_run("a", 2e6, 4e7, 0, std::exp(1))};
  const auto units = seed_means(runs);
  ASSERT_EQ(units.size(), 2U);
  EXPECT_EQ(units[0].seeds, 2);
  EXPECT_DOUBLE_EQ(units[0].log_loss, 1);
  EXPECT_DOUBLE_EQ(units[1].log_loss, 1);
  EXPECT_DOUBLE_EQ(decades_of_compute(units), std::log10(4));
  const auto noise = seed_noise(runs);
  ASSERT_TRUE(noise.has_value());
  EXPECT_EQ(noise->freedom, 1);
  EXPECT_DOUBLE_EQ(noise->sd, std::sqrt(2));
  EXPECT_FALSE(seed_noise({runs[0], runs[2]}).has_value());
}

TEST(Screening, TheLargestLossesAreLeftOutOnRequestAndNamed) {
  Screened screened{.runs = {planted_run("a", 1e6, 2e7, 0, 4), planted_run("a", 1e6, 2e7, 1, 6),
                             planted_run("a", 1e6, 2e7, 2, 5)}};
  drop_largest_losses(screened, 2);
  ASSERT_EQ(screened.runs.size(), 1U);
  EXPECT_EQ(screened.runs[0].seed, 0);
  EXPECT_EQ(screened.exclusions[0].run, "a-1e+06-2e+07-s1");
}

}  // namespace
}  // namespace convoy
