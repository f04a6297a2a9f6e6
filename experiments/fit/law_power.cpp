#include "experiments/fit/law_power.h"

#include <cmath>

namespace convoy {

PowerLaw::PowerLaw(const std::vector<Unit>& units) {
  require_units(name(), 3, units);
  for (const Unit& unit : units)
    mean_log_c_ += std::log(unit.C) / static_cast<double>(units.size());
}

std::vector<Quantity> PowerLaw::quantities() const {
  return {{"E", true, {1, 0, 0}}, {"K", true, {0, 1, mean_log_c_}}, {"gamma", false, {0, 0, 1}}};
}

Observation PowerLaw::terms_of(const Unit& unit) const {
  return {
      .terms = {Term{.coefficient = 0},
                Term{.coefficient = 1, .exponent = 2, .x = std::log(unit.C) - mean_log_c_}, Term{}},
      .term_count = 2};
}

std::vector<Start> PowerLaw::starts(const std::vector<Unit>& units) const {
  const LossRange losses = loss_range(units);
  std::vector<Start> starts;
  for (int i = 1; i <= 25; ++i)
    for (const double share : kFloorShares) {
      const double floor = share * losses.least;
      starts.push_back({std::log(floor), std::log(losses.geometric_mean - floor), 0.02 * i});
    }
  return starts;
}

}  // namespace convoy
