#include "experiments/fit/law.h"

#include <cmath>
#include <map>
#include <numeric>

#include "core/error.h"
#include "experiments/fit/law_chinchilla.h"
#include "experiments/fit/law_power.h"

namespace convoy {

double Quantity::exponent(const std::vector<double>& theta) const {
  return std::inner_product(weights.begin(), weights.end(), theta.begin(), 0.0);
}

double Quantity::value(const std::vector<double>& theta) const {
  return logarithmic ? std::exp(exponent(theta)) : exponent(theta);
}

Problem Law::problem(const std::vector<Unit>& units, Loss loss) const {
  Problem problem{.parameters = parameters(), .loss = loss};
  std::map<std::string, int> clusters;
  for (const Unit& unit : units) {
    Observation observation = terms_of(unit);
    observation.log_loss = unit.log_loss;
    const std::string key = unit.arch + '\x1f' + unit.size;
    observation.cluster = clusters.emplace(key, static_cast<int>(clusters.size())).first->second;
    problem.observations.push_back(observation);
  }
  return problem;
}

std::unique_ptr<Law> make_law(LawKind kind, const std::vector<Unit>& units) {
  if (kind == LawKind::chinchilla) return std::make_unique<ChinchillaLaw>(units);
  return std::make_unique<PowerLaw>(units);
}

void require_units(const std::string& law, int parameters, const std::vector<Unit>& units) {
  if (std::ssize(units) <= parameters)
    throw Error(concat("the law ", law, " has ", parameters, " parameters and there are ",
                       units.size(),
                       " usable points (seeds of one size and token count are one "
                       "point): add sizes or token counts, ",
                       parameters + 1, " points or more"));
}

LossRange loss_range(const std::vector<Unit>& units) {
  double least = units.front().log_loss;
  double sum = 0;
  for (const Unit& unit : units) {
    least = std::min(least, unit.log_loss);
    sum += unit.log_loss;
  }
  return {std::exp(least), std::exp(sum / static_cast<double>(units.size()))};
}

}  // namespace convoy
