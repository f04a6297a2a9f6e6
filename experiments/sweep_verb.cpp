#include "experiments/sweep_verb.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <memory>

#include "core/error.h"
#include "experiments/export/tables.h"
#include "experiments/export/tensorboard.h"
#include "experiments/sweep/arm_speeds.h"
#include "experiments/sweep/gpu_shares.h"
#include "experiments/sweep/sbatch_script.h"
#include "experiments/sweep/scheduler.h"
#include "experiments/sweep/sweep_status.h"
#include "experiments/sweep_report/page.h"
#include "experiments/sweep_report/study.h"
#include "launch/files.h"
#include "launch/stop_signal.h"
#include "launch/verbs.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

struct SweepArguments {
  std::string manifest, store, output, launcher, id;
  std::int64_t index = -1;
  bool json = false, dry_run = false, tensorboard = false;
  TimingOptions timing;
};

SweepPlan plan_of(const SweepArguments& a) {
  SweepManifest manifest = read_sweep_manifest(a.manifest);
  if (!a.store.empty()) manifest.store = a.store;
  if (!a.output.empty()) manifest.output = a.output;
  if (!a.launcher.empty()) manifest.launch.launcher = a.launcher;
  if (a.launcher == "local") manifest.launch.ranks.clear();  // one process a run
  return expand(manifest);
}

RunStore store_of(const SweepPlan& plan) { return RunStore(plan.manifest.store); }

// The runs of the chain that --index or --id names, or all.
std::vector<const PlannedRun*> chosen_runs(const SweepPlan& plan, const SweepArguments& a) {
  std::optional<std::size_t> chain;
  if (a.index >= 0) {
    chain = static_cast<std::size_t>(a.index);
    if (*chain >= plan.chains()) {
      throw Error(concat("--index ", a.index, ": the plan has ", plan.chains(),
                         " chains, from 0 to ", plan.chains() - 1));
    }
  } else if (!a.id.empty()) {
    const PlannedRun* run = plan.find(a.id);
    if (run == nullptr) {
      throw Error(concat("--id ", a.id, " is no run of this manifest; see convoy sweep plan"));
    }
    chain = run->chain;
  }
  std::vector<const PlannedRun*> runs;
  for (const auto& run : plan.runs) {
    if (!chain || run.chain == *chain) runs.push_back(&run);
  }
  return runs;
}

// output/runs/NAME -> the run directory in the store, so that a person finds it.
void make_links(const SweepPlan& plan, const RunStore& store) {
  const fs::path folder = plan.manifest.output / "runs";
  fs::create_directories(folder);
  for (const auto& run : plan.runs) {
    const fs::path target = store.folder(run), link = folder / run.name;
    if (!fs::exists(target)) continue;
    std::error_code ignored;
    fs::remove(link, ignored);
    fs::create_directory_symlink(fs::relative(target, folder), link, ignored);
  }
}

SweepTables export_tables(const SweepPlan& plan) {
  const RunStore store = store_of(plan);
  make_links(plan, store);
  SweepTables tables = make_tables(plan, store);
  write_tables(tables, plan.manifest.output);
  replace_text(plan.manifest.output / "study.json", to_json(study_of(plan, store)));
  std::cout << "tables of " << plan.manifest.name << " are in " << plan.manifest.output.string()
            << '\n';
  return tables;
}

int run_sweep(const SweepArguments& a) {
  const SweepPlan plan = plan_of(a);
  const std::string& launcher = plan.manifest.launch.launcher;
  if ((launcher == "srun" || launcher == "sbatch") && std::getenv("SLURM_JOB_ID") == nullptr) {
    throw Error("launcher = \"" + launcher +
                "\" needs a Slurm allocation; use convoy sweep submit, or --launcher mpirun");
  }
  const RunStore store = store_of(plan);
  install_stop_signals();
  const bool slurm_gives_gpus = launcher == "srun" || launcher == "sbatch";
  SchedulerOptions options{chosen_runs(plan, a), runs_side_by_side(plan),
                           slurm_gives_gpus ? std::vector<std::string>() : visible_gpus(),
                           [](const std::string& line) { std::cout << line << std::endl; }};
  const SweepOutcome outcome = run_all(plan, store, options);
  if (options.runs.size() == plan.runs.size()) export_tables(plan);
  std::cout << outcome.done << " done, " << outcome.diverged << " diverged, " << outcome.failed
            << " failed, of " << options.runs.size() << " runs\n";
  if (outcome.interrupted) return kInterruptedExitCode;
  return outcome.failed + outcome.diverged > 0 ? 1 : 0;
}

// One task for each chain that is not done.
int submit_sweep(const SweepArguments& a) {
  const SweepPlan plan = plan_of(a);
  const RunStore store = store_of(plan);
  std::vector<std::string> chains;
  std::size_t open = plan.chains();  // the chain that was listed last
  std::string trunk;
  for (const auto& run : plan.runs) {
    if (run.parent.empty()) trunk = run.id;
    const RunState state = store.state(run);
    if (run.chain == open || state == RunState::done || state == RunState::diverged) continue;
    chains.push_back(trunk);
    open = run.chain;
  }
  if (chains.empty()) {
    std::cout << "every run is done\n";
    return 0;
  }
  const std::string script = sbatch_script(plan, chains, a.manifest, plan.manifest.store);
  if (a.dry_run) {
    std::cout << script;
    return 0;
  }
  const fs::path folder = plan.manifest.output / "slurm";
  fs::create_directories(folder);
  replace_text(folder / "submit.sh", script);
  std::cout << submit_script(folder / "submit.sh");
  return 0;
}

void print_plan(const SweepArguments& a) {
  const SweepPlan plan = plan_of(a);
  std::cout << (a.json ? to_json(plan) : to_table(plan));
}

void print_status(const SweepArguments& a) {
  const SweepPlan plan = plan_of(a);
  const auto standing = standings(plan, store_of(plan));
  std::cout << (a.json ? to_json(standing) : to_table(standing));
}

void time_sweep(const SweepArguments& a) {
  const SweepPlan plan = plan_of(a);
  fs::create_directories(plan.manifest.output);
  const fs::path file = plan.manifest.output / "speeds.csv";
  const auto keep = [&](const ArmSpeeds& so_far, int rounds) {
    replace_text(file, speeds_csv(so_far));
    std::cout << "round " << rounds << " of " << a.timing.rounds << ": " << so_far.speeds.size()
              << " models timed" << std::endl;
  };
  const ArmSpeeds measured = time_arms(plan, a.timing, keep);
  std::cout << speeds_table(measured, plan.manifest.compare.reference) << "in " << file.string()
            << '\n';
}

CLI::App* add_action(CLI::App& sweep, const std::string& name, const std::string& what,
                     const std::shared_ptr<SweepArguments>& a) {
  CLI::App* verb = sweep.add_subcommand(name, what);
  verb->add_option("manifest", a->manifest, "TOML file, see docs/experiments.md")->required();
  verb->add_option("--store", a->store, "folder of all runs, in place of the manifest's");
  verb->add_option("--output", a->output, "folder of links and tables, in place of the manifest's");
  verb->add_option("--launcher", a->launcher, "in place of the manifest's")
      ->check(CLI::IsMember({"local", "mpirun", "srun", "sbatch"}));
  verb->footer("Example: convoy sweep " + name + " experiments/manifests/quickstart.toml");
  return verb;
}

}  // namespace

void add_sweep_verb(CLI::App& app, ExitCode& exit_code) {
  const auto a = std::make_shared<SweepArguments>();
  CLI::App* sweep = app.add_subcommand("sweep", "Plan, train and export the runs of a manifest");
  sweep->require_subcommand(1);
  sweep->footer("Example: convoy sweep plan experiments/manifests/quickstart.toml");

  CLI::App* plan = add_action(*sweep, "plan", "Every run with N, D, C, LR and estimated hours", a);
  plan->add_flag("--json", a->json, "print JSON");
  plan->callback([a] { print_plan(*a); });

  CLI::App* run =
      add_action(*sweep, "run", "Train what is not done yet; start it again at any time", a);
  auto* index = run->add_option("--index", a->index, "only this chain of the plan, from 0");
  run->add_option("--id", a->id, "only the chain of this run, by its id or name")->excludes(index);
  run->callback([a, &exit_code] { exit_code.value = run_sweep(*a); });

  CLI::App* submit = add_action(*sweep, "submit", "Hand the chains that are not done to sbatch", a);
  submit->add_flag("--dry-run", a->dry_run, "print the script only");
  submit->callback([a, &exit_code] { exit_code.value = submit_sweep(*a); });

  CLI::App* status = add_action(*sweep, "status", "The state of every run, and warnings", a);
  status->add_flag("--json", a->json, "print JSON");
  status->callback([a] { print_status(*a); });

  CLI::App* tables =
      add_action(*sweep, "export", "Write curves and runs as CSV, JSONL and HDF5", a);
  tables->add_flag("--tensorboard", a->tensorboard, "also event files, in OUTPUT/tensorboard");
  tables->callback([a] {
    const SweepPlan planned = plan_of(*a);
    const SweepTables made = export_tables(planned);
    const auto folder = planned.manifest.output / "tensorboard";
    if (a->tensorboard) write_tensorboard(planned, made.curves, folder);
  });

  CLI::App* time =
      add_action(*sweep, "time", "How fast each arm trains at each size, alone on this device", a);
  time->add_option("--sequences", a->timing.sequences,
                   "sequences a step, in place of the manifest's micro-batch")
      ->check(CLI::PositiveNumber);
  time->add_option("--rounds", a->timing.rounds, "over all models; the fastest counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  time->add_option("--repeats", a->timing.repeats, "steps of which the median counts")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  time->callback([a] { time_sweep(*a); });

  CLI::App* report =
      add_action(*sweep, "report", "Export, then write OUTPUT/report.html, all in one file", a);
  report->callback([a] {
    const SweepPlan planned = plan_of(*a);
    export_tables(planned);
    report_sweep(planned.manifest.output, "", std::cout);
  });
}

}  // namespace convoy
