#include "experiments/fit/minimize.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace convoy {
namespace {

// Objectives as equal as 1e-6, or both an exact fit (rounding of ln loss, squared).
bool same_objective(double a, double b) {
  constexpr double kExact = 1e-20;
  return std::abs(a - b) <= 1e-6 * std::max(std::abs(a), std::abs(b)) + kExact;
}

// Equal parameters, but for those of a term that has vanished at both.
bool same_place(const Minimum& a, const Minimum& b) {
  constexpr double kClose = 1e-4;
  constexpr double kVanished = -20;  // of a logarithm
  for (std::size_t i = 0; i < a.theta.size(); ++i) {
    const bool vanished = a.theta[i] < kVanished && b.theta[i] < kVanished;
    const double tolerance = kClose * std::max(1.0, std::abs(a.theta[i]));
    if (!vanished && std::abs(a.theta[i] - b.theta[i]) > tolerance) return false;
  }
  return true;
}

}  // namespace

MultiStart minimize_from(const Problem& problem, const std::vector<Start>& starts) {
  CHECK(!starts.empty(), "no start to minimise from");
  std::vector<Minimum> minima;
  for (const Start& start : starts) {
    Minimum minimum = minimize(problem, start);
    if (std::isfinite(minimum.objective)) minima.push_back(std::move(minimum));
  }
  CHECK(!minima.empty(), "every start led to a misfit that is not finite");
  std::stable_sort(minima.begin(), minima.end(),
                   [](const Minimum& a, const Minimum& b) { return a.objective < b.objective; });
  MultiStart result{.best = minima[0], .starts = static_cast<int>(starts.size())};
  for (const Minimum& minimum : minima)
    result.agreeing += static_cast<int>(same_objective(minimum.objective, minima[0].objective));
  result.best_two_agree = minima.size() > 1 &&
                          same_objective(minima[0].objective, minima[1].objective) &&
                          same_place(minima[0], minima[1]);
  return result;
}

}  // namespace convoy
