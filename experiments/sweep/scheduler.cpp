#include "experiments/sweep/scheduler.h"

#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <thread>

#include "core/error.h"
#include "experiments/sweep/gpu_shares.h"
#include "launch/stop_signal.h"

namespace convoy {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(20);
constexpr int kForeignPolls = 25;  // looks between two at a run that another sweep trains

// The last line of a run's log that says something, for a failure without a run.json.
std::string last_line(const std::filesystem::path& log) {
  std::ifstream file(log);
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) last = line;
  }
  return last;
}

class Scheduler {
 public:
  Scheduler(const SweepPlan& plan, const RunStore& store, const SchedulerOptions& options)
      : launch_(plan.manifest.launch), store_(store), options_(options), gpus_(options.gpus) {
    for (const PlannedRun* run : options.runs) tasks_.push_back({run});
  }

  SweepOutcome run() {
    for (Task& task : tasks_) look(task);
    while (!settled() && !(stop_requested() && running_ == 0)) {
      if (stop_requested()) ask_to_stop();
      collect();
      if (!stop_requested()) start_ready();
      std::this_thread::sleep_for(kPoll);
    }
    return outcome();
  }

 private:
  enum class Phase : std::uint8_t { waiting, elsewhere, training, done, diverged, failed };
  struct Task {
    const PlannedRun* run;
    Phase phase = Phase::waiting;
    std::int64_t tries = 0;
    pid_t process = -1;
    std::optional<RunLock> lock = {};
    int polls = 0;
    std::string gpus = {};  // what it was given while it trains
  };

  static bool is_settled(const Task& task) {
    return task.phase == Phase::done || task.phase == Phase::diverged ||
           task.phase == Phase::failed;
  }
  bool settled() const {
    return std::all_of(tasks_.begin(), tasks_.end(), [](const Task& t) { return is_settled(t); });
  }

  void say(const Task& task, const std::string& text) const {
    options_.say(task.run->name + ": " + text);
  }

  // What the store knows before anything is started. A diverged run would only diverge again.
  void look(Task& task) {
    switch (store_.state(*task.run)) {
      case RunState::done: settle(task, Phase::done, "done before"); break;
      case RunState::diverged:
        settle(task, Phase::diverged, "diverged before: " + store_.message(*task.run));
        break;
      case RunState::running: task.phase = Phase::elsewhere; break;
      default: task.phase = Phase::waiting;
    }
  }

  void settle(Task& task, Phase phase, const std::string& text) {
    task.phase = phase;
    say(task, text);
  }

  void start_ready() {
    for (Task& task : tasks_) {
      if (running_ >= options_.side_by_side) return;
      if (task.phase == Phase::elsewhere && ++task.polls % kForeignPolls == 0) look(task);
      if (task.phase == Phase::waiting && parent_allows(task)) start(task);
    }
  }

  // A branch waits for its long run, and fails with it.
  bool parent_allows(Task& task) {
    if (task.run->parent.empty()) return true;
    for (const Task& other : tasks_) {
      if (other.run->id != task.run->parent) continue;
      if (other.phase == Phase::done) return true;
      if (is_settled(other))
        settle(task, Phase::failed, "its long run " + other.run->name + " is not done");
      return false;
    }
    return true;  // not asked for: the branch starts from what the store holds
  }

  void start(Task& task) {
    try {
      task.lock = RunLock::take(store_.folder(*task.run));
      if (!task.lock) {
        task.phase = Phase::elsewhere;
        return;
      }
      store_.prepare(*task.run);
      store_.note_failure(*task.run, "");
      ProcessSpec spec;
      spec.command = train_command(*task.run, launch_, store_);
      spec.environment = {{"OMP_NUM_THREADS", "1"}};  // a rank is one thread
      if (task.run->config.train.device != "cpu") task.gpus = gpus_.take(task.run->ranks);
      if (!task.gpus.empty()) spec.environment["CUDA_VISIBLE_DEVICES"] = task.gpus;
      spec.log = store_.folder(*task.run) / "log.txt";
      spec.inherited = task.lock->descriptor();
      task.process = start_process(spec);
      task.lock->sign(task.process);
      task.phase = Phase::training;
      ++task.tries;
      ++running_;
      const std::string where = task.gpus.empty() ? "" : " on GPU " + task.gpus;
      say(task, (task.tries == 1 ? "started" : concat("try ", task.tries)) + where);
    } catch (const Error& error) {
      release(task);
      settle(task, Phase::failed, error.what());
    }
  }

  void release(Task& task) {
    task.lock.reset();
    gpus_.give_back(task.gpus);
    task.gpus.clear();
  }

  void collect() {
    for (Task& task : tasks_) {
      if (task.phase != Phase::training) continue;
      int status = 0;
      if (::waitpid(task.process, &status, WNOHANG) == 0) continue;
      release(task);
      --running_;
      ended(task, status);
    }
  }

  void ended(Task& task, int status) {
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    switch (state_of(task)) {
      case RunState::done: return settle(task, Phase::done, "done");
      case RunState::diverged: return settle(task, Phase::diverged, store_.message(*task.run));
      default: break;
    }
    task.phase = Phase::waiting;
    if (stop_requested()) return say(task, "stopped, goes on with the next sweep run");
    if (code == kInterruptedExitCode) {  // somebody asked this run alone to stop
      --task.tries;
      return say(task, "interrupted, goes on");
    }
    const std::string reason =
        concat("ended with code ", code, ": ", last_line(store_.folder(*task.run) / "log.txt"));
    if (task.tries > launch_.retries) {
      store_.note_failure(*task.run, reason);
      return settle(task, Phase::failed, reason);
    }
    say(task, reason);
  }

  // A run directory that cannot be read is this run's failure, not the sweep's.
  RunState state_of(const Task& task) const {
    try {
      return store_.state(*task.run);
    } catch (const Error& error) {
      say(task, error.what());
      return RunState::failed;
    }
  }

  void ask_to_stop() {
    if (asked_) return;
    asked_ = true;
    for (const Task& task : tasks_) {
      if (task.phase == Phase::training) ::kill(task.process, SIGTERM);
    }
  }

  SweepOutcome outcome() const {
    SweepOutcome result;
    for (const Task& task : tasks_) {
      result.done += task.phase == Phase::done;
      result.diverged += task.phase == Phase::diverged;
      result.failed += task.phase == Phase::failed;
      result.interrupted = result.interrupted || !is_settled(task);
    }
    return result;
  }

  const LaunchSection& launch_;
  const RunStore& store_;
  const SchedulerOptions& options_;
  GpuShares gpus_;
  std::vector<Task> tasks_;
  std::size_t running_ = 0;
  bool asked_ = false;
};

}  // namespace

SweepOutcome run_all(const SweepPlan& plan, const RunStore& store,
                     const SchedulerOptions& options) {
  return Scheduler(plan, store, options).run();
}

}  // namespace convoy
