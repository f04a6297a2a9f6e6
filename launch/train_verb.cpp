#include <CLI/CLI.hpp>

#include "launch/run_device.h"
#include "launch/stop_signal.h"
#include "launch/trainer.h"
#include "launch/verbs.h"
#include "parallel/mpi.h"
#include "parallel/nccl_communicator.h"
#include "parallel/watchdog.h"

namespace convoy {
namespace {

struct TrainArguments {
  std::string config, output, resume, branch_from;
  std::vector<std::string> overrides;
};

// A run that is done already needs nothing more.
bool is_done(const std::filesystem::path& run_directory) {
  return run_status(run_directory) == "done";
}

// Ends all ranks when one waits for the others beyond the deadline. None for a lone rank, or
// without a deadline.
std::unique_ptr<Watchdog> watchdog_of(const RunConfig& config, const TrainOptions& options,
                                      int ranks, const MpiEnvironment& mpi) {
  const double deadline_s = config.parallel.communication_deadline_s;
  if (ranks == 1 || deadline_s == 0) return nullptr;
  const WatchdogOptions watch{options.output / "positions", deadline_s};
  return std::make_unique<Watchdog>(watch, ranks, print_to_stderr,
                                    [&mpi] { mpi.abort(kHangExitCode); });
}

int run_train(const TrainArguments& arguments, const MpiEnvironment& mpi) {
  const RunConfig config = read_config(arguments.config, arguments.overrides);
  auto world = mpi.world();
  require_trainable(config, world->size());
  TrainOptions options{arguments.output, {}, arguments.branch_from};
  if (arguments.resume == "auto") {
    if (is_done(options.output)) return 0;
    options.resume.emplace();
  } else if (!arguments.resume.empty()) {
    options.resume = arguments.resume;
  }
  if (!arguments.branch_from.empty() && arguments.resume != "auto") {
    throw Error("--branch-from needs --resume auto: started again, the branch goes on by itself");
  }
  install_stop_signals();
  const auto backend = backend_of_run(config, mpi.local_rank());
  if (backend->device() == DeviceKind::cuda) {
    world = make_nccl_communicator(std::move(world), *backend);
  }
  const auto watchdog = watchdog_of(config, options, world->size(), mpi);
  if (watchdog) options.activity = &watchdog->watch(world->rank());
  Trainer trainer(config, options, *backend, *world);
  return trainer.run() == RunStatus::interrupted ? kInterruptedExitCode : 0;
}

}  // namespace

void add_train_verb(CLI::App& app, const MpiEnvironment& mpi, ExitCode& exit_code) {
  const auto arguments = std::make_shared<TrainArguments>();
  auto* verb = app.add_subcommand("train", "Train a model, alone or under mpirun or srun");
  verb->add_option("config", arguments->config, "TOML file")->required();
  verb->add_option("--set", arguments->overrides, "key=value, may be repeated");
  verb->add_option("--output", arguments->output, "run directory")->required();
  verb->add_option("--resume", arguments->resume,
                   "auto: the run directory's newest checkpoint, if any; or a checkpoint");
  verb->add_option("--branch-from", arguments->branch_from,
                   "with --resume auto: where the run has no checkpoint yet, start from this one "
                   "of a longer run with the same past (a cooldown branch)");
  verb->footer(
      "SIGTERM, SIGINT and SIGUSR1 end the run after the step at hand with a checkpoint and exit "
      "code 75.\n"
      "On several ranks, a wait beyond parallel.communication_deadline_s ends all of them with "
      "exit\n"
      "code 70 and a report that names the rank behind.\n"
      "Example: mpirun -np 2 convoy train run.toml --set train.steps=100 --output runs/first");
  verb->callback([arguments, &mpi, &exit_code] { exit_code.value = run_train(*arguments, mpi); });
}

}  // namespace convoy
