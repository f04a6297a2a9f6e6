#include "experiments/sweep/launcher.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>

#include "core/error.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

// launch/run_mpi of the source tree that the program was built in, or what CONVOY_RUN_MPI names.
std::string run_mpi_script() {
  if (const char* named = std::getenv("CONVOY_RUN_MPI")) return named;
  for (fs::path folder = own_program().parent_path(); folder != folder.root_path();
       folder = folder.parent_path()) {
    if (fs::exists(folder / "launch" / "run_mpi")) return folder / "launch" / "run_mpi";
  }
  throw Error(concat("launch/run_mpi is in no folder above ", own_program().string(),
                     "; name it in the environment variable CONVOY_RUN_MPI"));
}

// Ranks that share nodes with other steps of the same allocation must not wait for them.
std::vector<std::string> srun_words(const PlannedRun& run, const LaunchSection& launch) {
  std::vector<std::string> words = {"srun", "--ntasks=" + std::to_string(run.ranks)};
  const auto& own = launch.srun_options;
  const auto names_mpi = [](const std::string& word) { return word.starts_with("--mpi"); };
  if (std::none_of(own.begin(), own.end(), names_mpi)) words.emplace_back("--mpi=pmix");
  words.insert(words.end(), own.begin(), own.end());
  return words;
}

std::int64_t available_cores() {
  if (const char* tasks = std::getenv("SLURM_NTASKS")) {
    return std::max<std::int64_t>(std::atoll(tasks), 1);
  }
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

}  // namespace

fs::path own_program() { return fs::read_symlink("/proc/self/exe"); }

std::vector<std::string> train_command(const PlannedRun& run, const LaunchSection& launch,
                                       const RunStore& store) {
  std::vector<std::string> words;
  if (launch.launcher == "srun" || launch.launcher == "sbatch") {
    words = srun_words(run, launch);
  } else if (run.ranks > 1) {
    words = {run_mpi_script(), "-n", std::to_string(run.ranks)};
  }
  words.insert(words.end(), {own_program(), "train", store.config_file(run), "--output",
                             store.folder(run), "--resume", "auto"});
  if (const fs::path checkpoint = store.branch_checkpoint(run); !checkpoint.empty()) {
    words.insert(words.end(), {"--branch-from", checkpoint});
  }
  words.insert(words.end(), launch.train_options.begin(), launch.train_options.end());
  return words;
}

std::size_t runs_side_by_side(const SweepPlan& plan) {
  if (plan.manifest.launch.side_by_side > 0) {
    return static_cast<std::size_t>(plan.manifest.launch.side_by_side);
  }
  int ranks = 1;
  for (const auto& run : plan.runs) ranks = std::max(ranks, run.ranks);
  return static_cast<std::size_t>(std::max<std::int64_t>(available_cores() / ranks, 1));
}

}  // namespace convoy
