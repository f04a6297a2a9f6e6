// How one run is started: alone, under mpirun or under srun. All three train the same numbers.
#pragma once

#include <string>
#include <vector>

#include "experiments/sweep/process.h"
#include "experiments/sweep/run_store.h"

namespace convoy {

// The program itself, for the processes it starts.
std::filesystem::path own_program();

// The command that trains a run, from its newest checkpoint, else from its parent's.
std::vector<std::string> train_command(const PlannedRun& run, const LaunchSection& launch,
                                       const RunStore& store);

// Runs that go side by side, each rank on a core of its own: as [launch] says, else as many as the
// cores (or the tasks of a Slurm allocation) hold.
std::size_t runs_side_by_side(const SweepPlan& plan);

}  // namespace convoy
