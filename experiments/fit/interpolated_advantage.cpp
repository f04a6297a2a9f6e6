#include <cmath>

#include "experiments/fit/advantage.h"

namespace convoy {
namespace {

// The reference's ln C at this ln loss, from the first pair of neighbours in C that brackets it;
// NaN where none does.
double log_compute_at(const std::vector<Unit>& reference, double log_loss) {
  for (std::size_t i = 0; i + 1 < reference.size(); ++i) {
    const Unit& a = reference[i];
    const Unit& b = reference[i + 1];
    if (a.log_loss < log_loss || b.log_loss > log_loss || a.log_loss == b.log_loss) continue;
    const double share = (a.log_loss - log_loss) / (a.log_loss - b.log_loss);
    return std::log(a.C) + share * std::log(b.C / a.C);
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

std::vector<Advantage> interpolated_advantage(const std::vector<Unit>& reference,
                                              const std::vector<Unit>& arm) {
  std::vector<Advantage> result;
  for (const Unit& unit : arm) {
    Advantage advantage{.method = "interpolation"};
    const double log_c = log_compute_at(reference, unit.log_loss);
    if (std::isnan(log_c))
      advantage.note = "its loss lies outside the reference's";
    else
      advantage.estimate = std::exp(log_c - std::log(unit.C));
    result.push_back(std::move(advantage));
  }
  return result;
}

Advantage mean_interpolated(const std::vector<Advantage>& budgets) {
  std::vector<double> logs;
  for (const Advantage& budget : budgets)
    if (std::isfinite(budget.estimate)) logs.push_back(std::log(budget.estimate));
  Advantage mean{.method = "interpolation"};
  if (logs.size() < 2) {
    mean.note = "fewer than two budgets whose loss the reference has too";
    return mean;
  }
  const Estimate over_budgets = estimate(logs);
  mean.estimate = std::exp(over_budgets.mean);
  mean.interval =
      Interval{std::exp(over_budgets.interval->low), std::exp(over_budgets.interval->high)};
  return mean;
}

}  // namespace convoy
