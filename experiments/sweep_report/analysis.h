// What the fit library says about a sweep: which runs may speak, a law for each arm, and every arm
// against the reference. A refusal is kept in its own words.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/compare_arms.h"
#include "experiments/fit/fit.h"
#include "experiments/sweep_report/sweep_data.h"

namespace convoy {

struct ArmFit {
  std::string arm;
  std::optional<FitResult> fit = {};
  std::string refusal = {};  // where there is none
};

struct SweepAnalysis {
  std::vector<std::string> arms;  // of the usable runs; the reference first
  std::vector<RunRow> usable;
  std::vector<ExcludedRun> exclusions;
  std::vector<std::string> lr_warnings;  // a best learning rate at the edge of those tried
  std::vector<ArmFit> fits;              // in the order of arms
  std::optional<ArmComparison> comparison = {};
  std::string no_comparison = {};
};

// The law is the study's; without a study, `chinchilla` where the table allows it, else `power`.
SweepAnalysis analyse(const SweepData& data);

}  // namespace convoy
