// Warnings of a search for learning rates.
#include "experiments/sweep/sweep_status.h"

#include <gtest/gtest.h>

#include <cmath>

namespace convoy {
namespace {

// Runs of one arm, by multiplier and loss; NaN: not done yet; infinite: diverged.
std::vector<std::string> warnings(const std::vector<std::pair<double, double>>& losses) {
  std::vector<PlannedRun> runs(losses.size());
  std::vector<RunStanding> standings;
  for (std::size_t i = 0; i < losses.size(); ++i) {
    runs[i].arch = "conv";
    runs[i].lr_multiplier = losses[i].first;
    const double loss = losses[i].second;
    const RunState state = std::isinf(loss)   ? RunState::diverged
                           : std::isnan(loss) ? RunState::running
                                              : RunState::done;
    standings.push_back({&runs[i], state, 0, loss, ""});
  }
  return edge_warnings(standings);
}

TEST(SweepStatus, ABestRateInTheMiddleNeedsNoWarning) {
  EXPECT_TRUE(warnings({{0.5, 2.1}, {1, 2.0}, {2, 2.2}}).empty());
}

TEST(SweepStatus, ABestRateAtAnEdgeIsWarnedOf) {
  const auto high = warnings({{0.5, 2.2}, {1, 2.1}, {2, 2.0}});
  ASSERT_EQ(high.size(), 1u);
  EXPECT_NE(high[0].find("the best LR multiplier, 2, is the highest tried"), std::string::npos)
      << high[0];
  const auto low = warnings({{0.5, 2.0}, {1, 2.1}, {2, 2.2}});
  ASSERT_EQ(low.size(), 1u);
  EXPECT_NE(low[0].find("lowest"), std::string::npos) << low[0];
}

TEST(SweepStatus, ADivergedNeighbourIsAnEdgeThatWasSeen) {
  EXPECT_TRUE(warnings({{0.5, 2.1}, {1, 2.0}, {2, INFINITY}}).empty());
}

TEST(SweepStatus, OneRateAloneIsNoSearch) {
  EXPECT_TRUE(warnings({{1, 2.0}}).empty());
  EXPECT_TRUE(warnings({{1, 2.0}, {2, NAN}}).empty());
}

}  // namespace
}  // namespace convoy
