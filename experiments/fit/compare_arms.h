// Every arm of a table against the reference: the compute advantage by three estimators, what it
// becomes on the clock and without the arm's own FLOPs, and the orderings.
#pragma once

#include <string>
#include <vector>

#include "experiments/fit/advantage.h"
#include "experiments/fit/arm_cost.h"
#include "experiments/fit/ordering.h"
#include "experiments/fit/screening.h"

namespace convoy {

// One point of the arm.
struct BudgetAdvantage {
  std::string size;
  double C = 0;
  double loss = 0;  // geometric mean over the seeds
  Advantage separate;
  Advantage interpolation;
};

struct ArmAdvantage {
  std::string arm;
  JointFit joint = {};  // its advantage is the headline
  std::vector<BudgetAdvantage> budgets = {};
  Advantage interpolation = {};  // mean over the budgets
  ArmCost cost = {};
  Advantage wall_clock = {};    // M x (FLOP/s of the arm / of the reference)
  Advantage without_cost = {};  // M x (1 + overhead): the advantage if the arm's extra were free
};

struct ArmComparison {
  std::string reference;
  std::string speeds_source = {};  // the table of speeds; empty: the runs themselves
  std::vector<ArmAdvantage> arms;
  std::vector<OrderedPair> orderings;
  std::optional<SeedNoise> noise;
  std::vector<ExcludedRun> exclusions;
};

struct CompareOptions {
  std::string reference = {};              // the first arm of the table where empty
  std::vector<std::string> expected = {};  // an order to test, lowest loss first
  std::optional<Speeds> speeds = {};       // for the clock, in place of the runs' own
};

ArmComparison compare_arms(const Runs& table, const CompareOptions& options);

}  // namespace convoy
