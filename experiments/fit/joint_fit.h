// Two arms on one curve shape, as a Problem. theta = ln E, gamma, ln K'_reference, ln K'_arm; or
// with an exponent for each arm, ln E, gamma_reference, gamma_arm, ln K'_reference, ln K'_arm. K'
// is the term at the mean ln C of both.
#pragma once

#include <vector>

#include "experiments/fit/minimize.h"
#include "experiments/fit/units.h"

namespace convoy {

enum class Exponents { shared, free };

struct TwoArms {
  const std::vector<Unit>& reference;
  const std::vector<Unit>& arm;

  std::vector<Unit> all() const;
};

Problem joint_problem(const TwoArms& arms, Exponents exponents);
std::vector<Start> joint_starts(const TwoArms& arms, Exponents exponents);

}  // namespace convoy
