// The script that Slurm runs: an array with one task per chain (a long run and its branches).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "experiments/manifest/sweep_plan.h"

namespace convoy {

// `chains`: the id of each chain's long run, in the order of the array. The script names them, so
// that a manifest edited after the submission renumbers nothing. A task that is told to stop, by
// its time limit too, writes checkpoints and is queued again.
std::string sbatch_script(const SweepPlan& plan, const std::vector<std::string>& chains,
                          const std::filesystem::path& manifest,
                          const std::filesystem::path& store);

// Hands a script to sbatch; returns what sbatch answered.
std::string submit_script(const std::filesystem::path& script);

}  // namespace convoy
