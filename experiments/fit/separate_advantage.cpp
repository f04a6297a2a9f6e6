#include <cmath>

#include "core/error.h"
#include "experiments/fit/advantage.h"
#include "experiments/fit/fit_checks.h"
#include "experiments/fit/law_power.h"
#include "experiments/fit/uncertainty.h"

namespace convoy {
namespace {

constexpr int kParameters = 3;  // of L = E + K C^-gamma

// One arm's own curve.
struct Curve {
  double mean_log_c = 0;
  Problem problem = {};
  std::vector<double> theta = {};  // ln E, ln K', gamma
  double squares = 0;              // of the residuals
};

std::optional<Curve> fit_curve(const std::vector<Unit>& units) {
  const PowerLaw law(units);
  Curve curve{.problem = law.problem(units, Loss::mse)};
  const MultiStart search = minimize_from(curve.problem, law.starts(units));
  if (!search.best.converged) return std::nullopt;
  for (const Unit& unit : units)
    curve.mean_log_c += std::log(unit.C) / static_cast<double>(units.size());
  curve.theta = search.best.theta;
  curve.squares = search.best.objective * static_cast<double>(units.size());
  return curve;
}

// ln M at the arm's compute C, a function of both thetas; NaN where the reference never reaches the
// arm's loss.
double log_advantage_at(double log_c, const Curve& reference, const Curve& arm) {
  const auto& r = reference.theta;
  const auto& a = arm.theta;
  const double loss = std::exp(a[0]) + std::exp(a[1] - a[2] * (log_c - arm.mean_log_c));
  const double above_floor = loss - std::exp(r[0]);
  if (!(above_floor > 0)) return std::numeric_limits<double>::quiet_NaN();
  return reference.mean_log_c + (r[1] - std::log(above_floor)) / r[2] - log_c;
}

// Its variance, from both covariances, by central differences.
double variance_at(double log_c, const Curve& reference, const Curve& arm,
                   const SmallMatrix& reference_covariance, const SmallMatrix& arm_covariance) {
  constexpr double kStep = 1e-5;
  std::vector<double> by_reference, by_arm;
  for (std::size_t i = 0; i < kParameters; ++i) {
    const auto difference = [&](bool of_reference) {
      double ends[2] = {};
      for (const int side : {0, 1}) {
        Curve r = reference, a = arm;
        (of_reference ? r : a).theta[i] += side == 1 ? kStep : -kStep;
        ends[side] = log_advantage_at(log_c, r, a);
      }
      return (ends[1] - ends[0]) / (2 * kStep);
    };
    by_reference.push_back(difference(true));
    by_arm.push_back(difference(false));
  }
  return product(by_reference, reference_covariance, by_reference) +
         product(by_arm, arm_covariance, by_arm);
}

std::vector<Advantage> none_of(std::size_t count, const std::string& why) {
  return std::vector<Advantage>(count, Advantage{.method = "separate", .note = why});
}

}  // namespace

std::vector<Advantage> separate_advantage(const std::vector<Unit>& reference,
                                          const std::vector<Unit>& arm) {
  const int reference_sizes = distinct_sizes(reference);
  const int arm_sizes = distinct_sizes(arm);
  const int freedom = reference_sizes + arm_sizes - 2 * kParameters;
  // A spare point for each curve: two in all to judge the noise by.
  if (std::min(reference_sizes, arm_sizes) <= kParameters)
    return none_of(arm.size(), concat("too few points: ", reference_sizes, " and ", arm_sizes,
                                      " sizes, and a curve for each arm needs ", kParameters + 1));
  const auto r = fit_curve(reference);
  const auto a = fit_curve(arm);
  if (!r || !a) return none_of(arm.size(), "the fit of one arm alone did not converge");
  const auto r_covariance = unit_covariance(r->problem, r->theta);
  const auto a_covariance = unit_covariance(a->problem, a->theta);
  const double points = static_cast<double>(reference.size() + arm.size());
  // One noise for both arms; several token counts of a size count as copies of one.
  const double variance = (r->squares + a->squares) / (points - 2 * kParameters) * points /
                          (reference_sizes + arm_sizes);
  auto result = none_of(arm.size(), "");
  for (std::size_t i = 0; i < arm.size(); ++i) {
    const double log_c = std::log(arm[i].C);
    const double log_m = log_advantage_at(log_c, *r, *a);
    if (!std::isfinite(log_m) || !r_covariance || !a_covariance) {
      result[i].note = std::isfinite(log_m) ? "the data do not tell a curve's parameters apart"
                                            : "below the floor E of the reference's curve";
      continue;
    }
    const double half =
        student_t_critical(0.95, freedom) *
        std::sqrt(variance * variance_at(log_c, *r, *a, *r_covariance, *a_covariance));
    result[i].estimate = std::exp(log_m);
    if (std::isfinite(half))
      result[i].interval = Interval{std::exp(log_m - half), std::exp(log_m + half)};
    else
      result[i].note = "no interval: too near the floor E of the reference's curve";
  }
  return result;
}

}  // namespace convoy
