#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "experiments/fit/advantage.h"
#include "experiments/fit/fit_checks.h"
#include "experiments/fit/joint_fit.h"
#include "experiments/fit/uncertainty.h"

namespace convoy {
namespace {

// A smooth function of theta, with its gradient.
struct Smooth {
  double value = 0;
  std::vector<double> gradient = {};
};

// ln M of theta = ln E, gamma, ln K'_reference, ln K'_arm.
Smooth log_advantage(const std::vector<double>& theta) {
  const double gamma = theta[1];
  const double value = (theta[2] - theta[3]) / gamma;
  return {value, {0, -value / gamma, 1 / gamma, -1 / gamma}};
}

// d ln M / d ln C = gamma_arm / gamma_reference - 1, of theta with free exponents.
Smooth advantage_slope(const std::vector<double>& theta) {
  const double ratio = theta[2] / theta[1];
  return {ratio - 1, {0, -ratio / theta[1], 1 / theta[1], 0, 0}};
}

double standard_error(const Smooth& smooth, const Uncertainty& uncertainty) {
  return std::sqrt(product(smooth.gradient, *uncertainty.covariance, smooth.gradient));
}

std::optional<Interval> interval_of(const Smooth& smooth, const Uncertainty& uncertainty) {
  if (!uncertainty.draws.empty()) {
    std::vector<double> values;
    for (const auto& draw : uncertainty.draws) values.push_back(log_advantage(draw).value);
    return central_95(std::move(values));
  }
  if (!uncertainty.covariance) return std::nullopt;
  const double half = uncertainty.critical() * standard_error(smooth, uncertainty);
  return Interval{smooth.value - half, smooth.value + half};
}

// "" where there are points enough to judge the noise of a fit with so many parameters.
std::string too_few(const TwoArms& arms, int parameters) {
  const auto least = [](const std::vector<Unit>& units) { return distinct_sizes(units); };
  if (least(arms.reference) >= 2 && least(arms.arm) >= 2 &&
      least(arms.reference) + least(arms.arm) > parameters)
    return "";
  return concat("too few points: ", least(arms.reference), " sizes of the reference and ",
                least(arms.arm), " of the arm, and more than ", parameters,
                " in all, 2 or more of each, are needed");
}

std::vector<std::string> doubts_about_joint(const TwoArms& arms, const MultiStart& search) {
  const auto units = arms.all();
  std::vector<std::string> doubts = doubts_about_range(units);
  const auto add = [&](const std::vector<std::string>& more) {
    doubts.insert(doubts.end(), more.begin(), more.end());
  };
  if (!search.best_two_agree)
    doubts.push_back(
        concat("the best two of ", search.starts, " starts of the joint fit disagree"));
  const double least = loss_range(units).least;
  const double floor = std::exp(search.best.theta[0]);
  if (floor < 1e-6 * least) doubts.emplace_back("E of the joint fit is at its bound 0");
  add(doubts_about_floor(floor, least));
  add(doubts_about_exponent("gamma", search.best.theta[1]));
  const LossRange reference = loss_range(arms.reference);
  const auto losses = [](const std::vector<Unit>& all) {
    double most = all.front().log_loss;
    for (const Unit& unit : all) most = std::max(most, unit.log_loss);
    return std::exp(most);
  };
  if (losses(arms.arm) < reference.least || losses(arms.reference) < loss_range(arms.arm).least)
    doubts.emplace_back("the arms have no loss in common: M rests on extrapolation");
  return doubts;
}

ScaleTest scale_test(const TwoArms& arms) {
  ScaleTest test;
  test.note = too_few(arms, 5);
  if (!test.note.empty()) return test;
  const Problem problem = joint_problem(arms, Exponents::free);
  const MultiStart search = minimize_from(problem, joint_starts(arms, Exponents::free));
  const auto uncertainty = delta_method(problem, search.best.theta);
  if (!search.best.converged || !uncertainty.covariance) {
    test.note = search.best.converged ? uncertainty.missing
                                      : "the fit with an exponent for each arm did not converge";
    return test;
  }
  const Smooth slope = advantage_slope(search.best.theta);
  const double error = standard_error(slope, uncertainty);
  const double half = uncertainty.critical() * error;
  test.slope = slope.value;
  test.interval = Interval{slope.value - half, slope.value + half};
  if (error > 0)
    test.p = 1 - student_t_two_sided(std::abs(slope.value) / error, uncertainty.freedom);
  return test;
}

}  // namespace

JointFit joint_advantage(const std::vector<Unit>& reference, const std::vector<Unit>& arm) {
  const TwoArms arms{reference, arm};
  JointFit result{.advantage = {.method = "joint"}};
  result.advantage.note = too_few(arms, 4);
  if (!result.advantage.note.empty()) {
    result.scale.note = result.advantage.note;
    return result;
  }
  const Problem problem = joint_problem(arms, Exponents::shared);
  const MultiStart search = minimize_from(problem, joint_starts(arms, Exponents::shared));
  if (!search.best.converged) {
    result.advantage.note = "the joint fit did not converge";
    result.scale.note = result.advantage.note;
    return result;
  }
  const auto& theta = search.best.theta;
  const int sizes = std::min(distinct_sizes(reference), distinct_sizes(arm));
  const auto uncertainty = uncertainty_of(problem, theta, sizes, 4000);
  const Smooth log_m = log_advantage(theta);
  if (const auto interval = interval_of(log_m, uncertainty)) {
    result.advantage.estimate = std::exp(log_m.value);
    result.advantage.interval = Interval{std::exp(interval->low), std::exp(interval->high)};
  } else {
    result.advantage.note = uncertainty.missing;
  }
  result.scale = scale_test(arms);
  result.warnings = doubts_about_joint(arms, search);
  return result;
}

}  // namespace convoy
