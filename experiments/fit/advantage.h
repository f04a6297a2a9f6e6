// The compute advantage M(l) = C_reference / C_arm at equal loss l: how much more compute the
// reference needs. Three estimators that fail in different ways, and a test whether M changes with
// scale. All are fitted to seed means by least squares in ln loss.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/units.h"
#include "experiments/statistics.h"

namespace convoy {

// An estimate is NaN where there is none; the note says why it, or its interval, is missing.
struct Advantage {
  std::string method = {};  // "joint", "separate" or "interpolation"
  double estimate = std::numeric_limits<double>::quiet_NaN();
  std::optional<Interval> interval = {};  // 95 %
  std::string note = {};
};

// ln M = ... + slope x ln C. A slope other than 0 means that M holds at one budget only.
struct ScaleTest {
  double slope = std::numeric_limits<double>::quiet_NaN();
  std::optional<Interval> interval = {};
  double p = std::numeric_limits<double>::quiet_NaN();  // of a slope this far from 0 by chance
  std::string note = {};
};

struct JointFit {
  Advantage advantage = {};
  ScaleTest scale = {};
  std::vector<std::string> warnings = {};
};

// L = E + K_arm C^-gamma with E and gamma common: M = (K_reference / K_arm)^(1/gamma). The
// headline.
JointFit joint_advantage(const std::vector<Unit>& reference, const std::vector<Unit>& arm);

// Each arm fitted alone, M at each unit of the arm; in the order of `arm`.
std::vector<Advantage> separate_advantage(const std::vector<Unit>& reference,
                                          const std::vector<Unit>& arm);

// No fit: the reference's C at the arm's loss, by straight lines of ln C over ln loss between
// neighbours. Single points have no interval; the mean over the budgets does.
std::vector<Advantage> interpolated_advantage(const std::vector<Unit>& reference,
                                              const std::vector<Unit>& arm);
Advantage mean_interpolated(const std::vector<Advantage>& budgets);

}  // namespace convoy
