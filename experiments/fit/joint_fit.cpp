#include "experiments/fit/joint_fit.h"

#include <cmath>
#include <map>

#include "experiments/fit/law.h"

namespace convoy {

std::vector<Unit> TwoArms::all() const {
  std::vector<Unit> units = reference;
  units.insert(units.end(), arm.begin(), arm.end());
  return units;
}

Problem joint_problem(const TwoArms& arms, Exponents exponents) {
  const auto units = arms.all();
  const int coefficients = exponents == Exponents::free ? 3 : 2;
  Problem problem{.parameters = coefficients + 2, .loss = Loss::mse};
  double mean_log_c = 0;
  for (const Unit& unit : units) mean_log_c += std::log(unit.C) / static_cast<double>(units.size());
  std::map<std::string, int> clusters;
  for (std::size_t i = 0; i < units.size(); ++i) {
    const int which = i < arms.reference.size() ? 0 : 1;
    const Term power{.coefficient = coefficients + which,
                     .exponent = exponents == Exponents::free ? 1 + which : 1,
                     .x = std::log(units[i].C) - mean_log_c};
    const std::string key = std::to_string(which) + units[i].size;
    const int cluster = clusters.emplace(key, static_cast<int>(clusters.size())).first->second;
    problem.observations.push_back({.terms = {Term{}, power, Term{}},
                                    .term_count = 2,
                                    .log_loss = units[i].log_loss,
                                    .cluster = cluster});
  }
  return problem;
}

std::vector<Start> joint_starts(const TwoArms& arms, Exponents exponents) {
  const double least = loss_range(arms.all()).least;
  std::vector<Start> starts;
  for (int i = 1; i <= 25; ++i)
    for (const double share : kFloorShares) {
      const double floor = share * least;
      Start start{std::log(floor), 0.02 * i};
      if (exponents == Exponents::free) start.push_back(0.02 * i);
      for (const auto* units : {&arms.reference, &arms.arm})
        start.push_back(std::log(loss_range(*units).geometric_mean - floor));
      starts.push_back(std::move(start));
    }
  return starts;
}

}  // namespace convoy
