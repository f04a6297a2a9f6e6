// A fit and a comparison of arms, as text for a person and as JSON for a program.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "experiments/fit/compare_arms.h"
#include "experiments/fit/fit.h"

namespace convoy {

// {"law", "E", "A", ..., "objective", "converged", "starts_agreeing", "intervals": {"E": [low,
// high], ...}, ...}. Unknown numbers and missing intervals are null.
std::string fit_json(const FitResult& fit, const std::vector<ExcludedRun>& exclusions);
void print_fit(std::ostream& out, const FitResult& fit, const std::vector<ExcludedRun>& exclusions);

// {"reference", "arms": [{"arm", "advantage": {"estimate", "low", "high", "method"}, "budgets":
// [{"size", "C", "advantage": {...}, "interpolation": {...}}], ...}], "orderings": [...], ...}
std::string compare_json(const ArmComparison& comparison);
void print_comparison(std::ostream& out, const ArmComparison& comparison);

}  // namespace convoy
