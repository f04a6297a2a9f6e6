// Trains the runs of a plan: skips what is done, resumes what was killed, starts a branch when its
// long run is done, tries a failed run again, and goes on whatever becomes of one of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "experiments/sweep/launcher.h"

namespace convoy {

struct SweepOutcome {
  std::size_t done = 0, diverged = 0, failed = 0;
  bool interrupted = false;  // the sweep was asked to stop
};

struct SchedulerOptions {
  std::vector<const PlannedRun*> runs;  // a parent among them or done before
  std::size_t side_by_side = 1;
  std::vector<std::string> gpus = {};  // that runs are spread over; none: each sees what we see
  std::function<void(const std::string&)> say;  // a line for a person
};

// Returns when every run is settled, or soon after stop_requested().
SweepOutcome run_all(const SweepPlan& plan, const RunStore& store, const SchedulerOptions& options);

}  // namespace convoy
