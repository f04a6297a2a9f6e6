// A second opinion on a fit that shares nothing with the first but the formula: the coefficients
// are solved for, linearly, inside a search over the exponents alone. They may come out negative
// here, which the logarithms of the main fit rule out.
#pragma once

#include <vector>

#include "experiments/fit/sum_of_powers.h"

namespace convoy {

struct Projection {
  std::vector<double> coefficients = {};  // by index in theta; 0 at the places of exponents
  std::vector<double> exponents = {};     // by index in theta; 0 at the places of coefficients
  double objective = 0;                   // as objective() defines it
};

Projection project(const Problem& problem);

}  // namespace convoy
