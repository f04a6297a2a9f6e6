// Where a sweep stands, read from the store.
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "experiments/sweep/run_store.h"

namespace convoy {

struct RunStanding {
  const PlannedRun* run;
  RunState state;
  std::int64_t steps = 0;
  double val_loss = 0;  // of the last validation; NaN: none yet
  std::string message;
  double val_accuracy = std::numeric_limits<double>::quiet_NaN();  // of the last validation
};

std::vector<RunStanding> standings(const SweepPlan& plan, const RunStore& store);

// Learning rates whose best is the lowest or the highest one tried: the search must go on.
std::vector<std::string> edge_warnings(const std::vector<RunStanding>& standings);

std::string to_table(const std::vector<RunStanding>& standings);
std::string to_json(const std::vector<RunStanding>& standings);

}  // namespace convoy
