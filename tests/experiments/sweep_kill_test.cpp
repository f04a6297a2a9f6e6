// A sweep killed with SIGKILL at random moments and started again ends with the tables of one that
// was never disturbed.
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <random>
#include <set>
#include <thread>

#include "tests/experiments/sweep_fixture.h"

namespace convoy::test {
namespace {

namespace fs = std::filesystem;

constexpr int kKills = 5;
const std::set<std::string> kOfThisRun = {"wall_s",  "tokens_per_s", "mfu",
                                          "attempt", "mean_mfu",     "device_hours"};

class KilledSweep : public Sweep {
 protected:
  pid_t start(const std::string& command) const {
    const pid_t child = fork();
    if (child == 0) {
      const std::string whole = "exec " + command + " >>" + path("killed.log") + " 2>&1";
      execl("/bin/sh", "sh", "-c", whole.c_str(), nullptr);
      _exit(127);
    }
    return child;
  }

  // The trainers that the sweep started, by its lock files.
  void kill_trainers() const {
    if (!fs::exists(path("killed"))) return;
    for (const auto& folder : folders("killed")) {
      std::ifstream lock(folder / "lock");
      std::string host;
      pid_t process = 0;
      if (!(lock >> host >> process)) continue;
      const std::string command = "/proc/" + std::to_string(process) + "/cmdline";
      std::ifstream arguments(command);
      std::string text;
      std::getline(arguments, text);
      if (text.find(folder.filename().string()) != std::string::npos) kill(process, SIGKILL);
    }
  }

  // Whether the sweep was still at work when it was killed.
  bool run_and_kill(const std::string& command, std::chrono::milliseconds after, bool trainers) {
    const pid_t sweep = start(command);
    std::this_thread::sleep_for(after);
    int status = 0;
    const bool alive = waitpid(sweep, &status, WNOHANG) == 0;
    if (!alive) return false;
    kill(sweep, SIGKILL);
    if (trainers) kill_trainers();
    waitpid(sweep, &status, 0);
    return true;
  }

  std::string table(const std::string& store, const std::string& name) const {
    return without_columns(read_text(path(store + "_output/" + name)), kOfThisRun);
  }
};

TEST_F(KilledSweep, EndsWithTheTablesOfAnUndisturbedOne) {
  const std::string more = "seeds = [0, 1]\n";
  write_manifest("m.toml", base() + two_arms() + size("S", 16) + size("M", 32) + plan(more) +
                               branches() + "[launch]\nside_by_side = 2\nretries = 2\n");
  const auto begin = std::chrono::steady_clock::now();
  const auto whole = sweep("run", "m.toml", "whole");
  ASSERT_EQ(whole.code, 0) << whole.output;
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - begin);

  std::mt19937 random(std::random_device{}());
  // Together the attempts before the last one last about as long as the undisturbed sweep.
  std::uniform_int_distribution<long> delay(20, 2 * took.count() / (kKills + 1));
  int kills = 0;
  for (int i = 0; i < kKills; ++i) {
    const std::chrono::milliseconds after(delay(random));
    kills += run_and_kill(sweep_command("run", "m.toml", "killed"), after, i % 2 == 0);
  }
  EXPECT_GE(kills, kKills - 2) << "the kills came too late to test anything";
  const auto last = sweep("run", "m.toml", "killed");
  ASSERT_EQ(last.code, 0) << last.output;
  for (const char* name : {"curves.csv", "runs.csv"}) {
    EXPECT_EQ(table("killed", name), table("whole", name)) << name;
  }
  EXPECT_NE(read_text(path("killed_output/curves.csv")), read_text(path("whole_output/curves.csv")))
      << "equal times too? then nothing was killed";
}

TEST_F(KilledSweep, AskedToStopItLeavesCheckpointsAndGoesOnFromThem) {
  const std::string longer = "[plan]\nmode = \"grid\"\ntokens = [512000]\nepochs = 100\n";
  write_manifest("m.toml", base() + "[arch.transformer]\n" + size("S", 16) + longer);
  const pid_t sweep_process = start(sweep_command("run", "m.toml", "killed"));
  // The first rows say that the trainer is at work and has its signal handlers.
  const auto begun = [&] {
    if (!fs::exists(path("killed")) || folders("killed").empty()) return false;
    const fs::path metrics = folders("killed")[0] / "metrics.jsonl";
    return fs::exists(metrics) && count(read_text(metrics), "\n") > 5;
  };
  for (int i = 0; i < 2000 && !begun(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  kill(sweep_process, SIGTERM);
  int status = 0;
  waitpid(sweep_process, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 75) << read_text(path("killed.log"));
  const fs::path run = folders("killed")[0];
  const auto json = nlohmann::json::parse(read_text(run / "run.json"));
  EXPECT_EQ(json.at("status"), "interrupted");
  const auto reached = Checkpoint::open(run).manifest().step;
  EXPECT_LT(reached, 2000);
  const auto state = sweep("status", "m.toml", "killed");
  EXPECT_NE(state.output.find("1 interrupted"), std::string::npos) << state.output;
  ASSERT_EQ(sweep("run", "m.toml", "killed").code, 0);
  std::ifstream metrics(run / "metrics.jsonl");
  std::int64_t first = 0;
  for (std::string line; std::getline(metrics, line) && first == 0;) {
    const auto row = nlohmann::json::parse(line);
    if (row.at("attempt") == 2) first = row.at("step");
  }
  EXPECT_EQ(first, reached + 1) << "it should go on from the checkpoint it left";
}

}  // namespace
}  // namespace convoy::test
