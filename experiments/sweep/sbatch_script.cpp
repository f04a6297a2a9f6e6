#include "experiments/sweep/sbatch_script.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>

#include "core/error.h"
#include "experiments/sweep/launcher.h"
#include "launch/stop_signal.h"

namespace convoy {
namespace {

// In single quotes, for a shell.
std::string quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

// Slurm's own seconds between the signal and the end of a task whose time is up.
constexpr int kGraceSeconds = 120;

constexpr const char* kBody = R"(
set -u
cd {folder}
chains=(
{chains})

# Slurm signals this shell; the sweep passes it on, and every run writes a checkpoint.
{program} sweep run {manifest} --store {store} --id "${{chains[$SLURM_ARRAY_TASK_ID]}}" &
sweep=$!
trap 'kill -TERM "$sweep" 2>/dev/null' TERM USR1
while kill -0 "$sweep" 2>/dev/null; do wait "$sweep"; done
wait "$sweep"
code=$?
if [[ $code == {interrupted} ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
)";

}  // namespace

std::string sbatch_script(const SweepPlan& plan, const std::vector<std::string>& chains,
                          const std::filesystem::path& manifest,
                          const std::filesystem::path& store) {
  const auto& m = plan.manifest;
  int ranks = 1;
  for (const auto& run : plan.runs) ranks = std::max(ranks, run.ranks);
  std::string text = "#!/usr/bin/env bash\n";
  const auto option = [&](const std::string& word) { text += "#SBATCH " + word + "\n"; };
  option("--job-name=" + m.name);
  const std::int64_t parallel = m.launch.array_max_parallel;
  option(fmt::format("--array=0-{}{}", chains.size() - 1,
                     parallel > 0 ? fmt::format("%{}", parallel) : ""));
  option(fmt::format("--ntasks={}", ranks));
  option(fmt::format("--output={}", (m.output / "slurm" / "%A_%a.log").string()));
  option("--open-mode=append");
  option("--requeue");
  option(fmt::format("--signal=B:TERM@{}", kGraceSeconds));
  for (const auto& word : m.launch.sbatch_options) option(word);
  std::string list;
  for (const auto& id : chains) list += "  " + id + "\n";
  text +=
      fmt::format(fmt::runtime(kBody), fmt::arg("folder", quoted(std::filesystem::current_path())),
                  fmt::arg("chains", list), fmt::arg("program", quoted(own_program())),
                  fmt::arg("manifest", quoted(manifest)), fmt::arg("store", quoted(store)),
                  fmt::arg("interrupted", kInterruptedExitCode));
  return text;
}

std::string submit_script(const std::filesystem::path& script) {
  std::FILE* pipe = popen(("sbatch " + quoted(script) + " 2>&1").c_str(), "r");
  if (pipe == nullptr) throw Error("cannot start sbatch");
  std::string answer;
  char part[4096];
  for (std::size_t n = 0; (n = std::fread(part, 1, sizeof(part), pipe)) > 0;)
    answer.append(part, n);
  const int status = pclose(pipe);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return answer;
  throw Error(concat("sbatch refused ", script.string(), ": ", answer));
}

}  // namespace convoy
