// What makes a fitted law doubtful, each in a sentence with its numbers.
#pragma once

#include <string>
#include <vector>

#include "experiments/fit/law.h"
#include "experiments/fit/variable_projection.h"

namespace convoy {

inline constexpr double kEnoughDecades = 1.5;

// Throws Error where the best start did not end at a minimum.
void require_convergence(const MultiStart& search, const std::string& law);

std::vector<std::string> doubts_about(const Law& law, const std::vector<Unit>& units,
                                      const MultiStart& search, const Projection& check);

// "less than 1.5 decades of C" or nothing.
std::vector<std::string> doubts_about_range(const std::vector<Unit>& units);

// E and exponents at or near their bounds.
std::vector<std::string> doubts_about_floor(double floor, double least_loss);
std::vector<std::string> doubts_about_exponent(const std::string& name, double value);

}  // namespace convoy
