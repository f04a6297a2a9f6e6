// One folder for all runs of all manifests, by run id. A run directory there is the truth about its
// run; a lock file, held by whoever trains it, tells a run at work from one that was killed.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "experiments/manifest/sweep_plan.h"

namespace convoy {

enum class RunState : std::uint8_t { planned, running, interrupted, done, failed, diverged };
std::string name_of(RunState state);

// Held as long as the descriptor is open, in this process or in one that inherited it: so a
// trainer that outlives a killed sweep keeps its run.
class RunLock {
 public:
  // Makes the folder where it is missing; nothing where somebody else holds the run.
  static std::optional<RunLock> take(const std::filesystem::path& folder);
  RunLock(RunLock&& other) noexcept;
  RunLock& operator=(RunLock&& other) noexcept;
  ~RunLock();

  int descriptor() const { return descriptor_; }
  void sign(pid_t process) const;  // writes host and process into the file, for people

 private:
  explicit RunLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

class RunStore {
 public:
  explicit RunStore(std::filesystem::path root) : root_(std::move(root)) {}

  std::filesystem::path folder(const PlannedRun& run) const { return root_ / run.id; }
  std::filesystem::path config_file(const PlannedRun& run) const;

  // `done` only with the last step and the last validation present; a run whose status says
  // running but that nobody holds was killed: interrupted.
  RunState state(const PlannedRun& run) const;
  std::string message(const PlannedRun& run) const;  // why it failed, where it did
  std::int64_t steps_done(const PlannedRun& run) const;

  // Writes the configuration to train into the folder of a run whose lock we hold. Refuses where
  // the folder belongs to a run with other numbers: another configuration, or other data under the
  // same name.
  void prepare(const PlannedRun& run) const;

  // What a run failed of that could not say so itself; an empty reason forgets it.
  void note_failure(const PlannedRun& run, const std::string& reason) const;

  // The parent's newest whole checkpoint not beyond the branch point; empty: start from step 0.
  std::filesystem::path branch_checkpoint(const PlannedRun& run) const;

 private:
  std::filesystem::path root_;
};

}  // namespace convoy
