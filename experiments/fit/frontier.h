// Where a fitted law is drawn: points along C from the least of the table to three times the
// largest. For L(N, D) they lie on its compute-optimal frontier, the least loss at each C.
#pragma once

#include <string>
#include <vector>

#include "experiments/fit/law.h"

namespace convoy {

struct Frontier {
  std::vector<Unit> points = {};  // without losses
  std::string note = {};          // what it assumes, or why there is none
};

// `theta` of `law`, fitted to `units` (by increasing C). With C = k N D, k the geometric mean over
// the units, the frontier is N = G (C/k)^(beta/(alpha+beta)), D = C / (k N) and
// G^(alpha+beta) = alpha A / (beta B) (Hoffmann et al. 2022, arXiv 2203.15556, equation 4).
Frontier frontier_of(const Law& law, const std::vector<double>& theta,
                     const std::vector<Unit>& units);

}  // namespace convoy
