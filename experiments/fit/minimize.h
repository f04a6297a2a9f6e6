// The door to Ceres: the minimum of a sum of powers' misfit, from one start or from many. Built
// without Ceres, it throws and says so.
#pragma once

#include <span>
#include <vector>

#include "experiments/fit/sum_of_powers.h"

namespace convoy {

using Start = std::vector<double>;

struct Minimum {
  std::vector<double> theta = {};
  double objective = 0;
  bool converged = false;  // judged here by stationarity(), not by the optimiser's own word
};

bool has_minimizer();

// Huber by BFGS with a line search, mean squares by Levenberg-Marquardt; both with automatic
// derivatives. Throws Error in a build without Ceres.
Minimum minimize(const Problem& problem, std::span<const double> start);

struct MultiStart {
  Minimum best = {};
  int starts = 0;
  int agreeing = 0;  // starts that ended at the best objective, to 1e-6 of it
  // Whether the second best start ended at the same place, and not only at a similar objective.
  bool best_two_agree = false;
};

MultiStart minimize_from(const Problem& problem, const std::vector<Start>& starts);

}  // namespace convoy
