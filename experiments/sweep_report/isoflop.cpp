#include "experiments/sweep_report/isoflop.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "experiments/fit/small_matrix.h"

namespace convoy {
namespace {

std::array<double, 3> powers(double x) { return {1, x, x * x}; }

// Least squares; returns the inverse of the normal matrix, for the interval.
std::optional<SmallMatrix> fit_parabola(IsoflopProfile& profile) {
  SmallMatrix normal(3);
  std::vector<double> right(3);
  for (const Unit& unit : profile.units) {
    const auto row = powers(std::log(unit.N) - profile.centre);
    normal.add_outer(row, 1);
    for (std::size_t i = 0; i < 3; ++i) right[i] += row[i] * std::exp(unit.log_loss);
  }
  const auto solution = solve(normal, right);
  if (!solution) return std::nullopt;
  profile.parabola = *solution;
  return inverse(normal);
}

// Delta method for x = -b / 2a, with the residuals' own variance and n - 3 degrees of freedom.
std::optional<Interval> interval_of_best(const IsoflopProfile& profile, const SmallMatrix& spread) {
  const int freedom = static_cast<int>(profile.units.size()) - 3;
  if (freedom < 1) return std::nullopt;
  double squares = 0;
  for (const Unit& unit : profile.units) {
    const double error = std::exp(unit.log_loss) - profile.at(unit.N);
    squares += error * error;
  }
  const double b = profile.parabola[1], a = profile.parabola[2];
  const std::array<double, 3> gradient = {0, -1 / (2 * a), b / (2 * a * a)};
  const double sd = std::sqrt(squares / freedom * product(gradient, spread, gradient));
  const double half = student_t_critical(0.95, freedom) * sd;
  return Interval{profile.best_n * std::exp(-half), profile.best_n * std::exp(half)};
}

// D at N on the straight line in logarithms between the two neighbours in N.
double tokens_at(const std::vector<Unit>& units, double n) {
  auto right = std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.N >= n; });
  if (right == units.begin()) return right->D;
  const Unit& low = *std::prev(right);
  const double share = std::log(n / low.N) / std::log(right->N / low.N);
  return low.D * std::pow(right->D / low.D, share);
}

int distinct_n(const std::vector<Unit>& units) {
  int count = 0;
  for (std::size_t i = 0; i < units.size(); ++i)
    if (i == 0 || units[i].N != units[i - 1].N) ++count;
  return count;
}

}  // namespace

double IsoflopProfile::at(double n) const {
  const double x = std::log(n) - centre;
  return parabola[0] + x * (parabola[1] + x * parabola[2]);
}

IsoflopProfile isoflop_profile(const std::string& arm, double budget, std::vector<Unit> units) {
  std::sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) { return a.N < b.N; });
  IsoflopProfile profile{.arm = arm, .budget = budget, .units = std::move(units)};
  const int sizes = distinct_n(profile.units);
  if (sizes < 3) {
    profile.note = concat("too few sizes: ", sizes, ", and a parabola needs 3");
    return profile;
  }
  for (const Unit& unit : profile.units)
    profile.centre += std::log(unit.N) / static_cast<double>(profile.units.size());
  const auto covariance = fit_parabola(profile);
  if (!covariance || profile.parabola[2] <= 0) {
    profile.parabola.clear();
    profile.note = "the losses do not curve upwards: no best size";
    return profile;
  }
  const double best = std::exp(profile.centre - profile.parabola[1] / (2 * profile.parabola[2]));
  if (best < profile.units.front().N || best > profile.units.back().N) {
    profile.note = concat("the lowest point is beyond the ",
                          best < profile.units.front().N ? "smallest" : "largest",
                          " size tried: the search must go on");
    return profile;
  }
  profile.best_n = best;
  profile.best_loss = profile.at(best);
  profile.best_d = tokens_at(profile.units, best);
  profile.best_n_interval = interval_of_best(profile, *covariance);
  return profile;
}

}  // namespace convoy
