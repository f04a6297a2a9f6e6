// A rank of several is killed or stopped in the middle of a step: the others end within the
// deadline and name it, nobody takes the run for done or stopped in agreement, and resumed it ends
// with the bits of a run to which nothing happened.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <future>
#include <iterator>
#include <thread>

#include "launch/run_directory.h"
#include "tests/launch/tiny_run.h"

namespace convoy::test {
namespace {

namespace fs = std::filesystem;

constexpr int kRanks = 4, kVictim = 1;
constexpr int kDeadline = 4;  // s
constexpr int kSlack = 20;    // s; the grace and the end of the ranks on a busy machine
// A rank has a stage of half of the replicas.
const std::string kLayout =
    "--set parallel.dp=2 --set parallel.pp=2 --set parallel.zero=1 --set train.batch_tokens=2048 "
    "--set checkpoint.every=3 ";
const std::string kWatched =
    "--set parallel.communication_deadline_s=" + std::to_string(kDeadline) + " ";

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The process that mpirun started as `rank` of the run that writes to `output`; 0: there is none.
pid_t process_of(const std::string& output, int rank) {
  const std::string variable = concat("OMPI_COMM_WORLD_RANK=", rank, '\0');
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      continue;
    }
    if (content(entry.path() / "cmdline").find(output + '\0') == std::string::npos) continue;
    if (content(entry.path() / "environ").find(variable) == std::string::npos) continue;
    return std::stoi(name);
  }
  return 0;
}

class LostRank : public TinyRun {
 protected:
  struct Ending {
    int code;
    std::string output;
    double seconds;  // from the signal on
  };

  // Trains, and when some steps are done, does this to the processes of the ranks.
  Ending train_and(const std::function<void(const std::vector<pid_t>&)>& strike,
                   const std::string& environment = "") {
    using Clock = std::chrono::steady_clock;
    auto run = std::async(std::launch::async, [&] {
      return run_shell(environment + train_command("cut", kLayout + kWatched, kRanks));
    });
    const auto is_running = [&] {
      return run.wait_for(std::chrono::milliseconds(5)) == std::future_status::timeout;
    };
    while (is_running() && steps_done() < 8) continue;
    std::vector<pid_t> processes;
    for (int rank = 0; rank < kRanks; ++rank) processes.push_back(process_of(path("cut"), rank));
    const auto struck = Clock::now();
    const bool all_there = std::count(processes.begin(), processes.end(), 0) == 0;
    if (all_there) {
      strike(processes);
      const auto patience = std::chrono::seconds(kDeadline + kSlack);
      if (run.wait_for(patience) == std::future_status::timeout) {
        for (const pid_t process : processes) kill(process, SIGKILL);  // nobody else ends them
      }
    }
    const ProcessResult result = run.get();
    EXPECT_TRUE(all_there) << "no process to signal: " << result.output;
    return {result.code, result.output,
            std::chrono::duration<double>(Clock::now() - struck).count()};
  }
  Ending train_and_signal(int signal, const std::string& environment = "") {
    return train_and([&](const std::vector<pid_t>& ranks) { kill(ranks[kVictim], signal); },
                     environment);
  }

  std::int64_t steps_done() const {
    const std::string rows = content(folder_.path() / "cut" / "metrics.jsonl");
    return std::count(rows.begin(), rows.end(), '\n');
  }

  void expect_unfinished(const Ending& ending) const {
    EXPECT_NE(ending.code, 0) << ending.output;
    EXPECT_NE(ending.code, 75) << "nobody agreed to stop: " << ending.output;
    EXPECT_EQ(ending.output.find("stopped by a signal"), std::string::npos) << ending.output;
    EXPECT_LT(steps_done(), 40) << "the signal came too late to test anything";
    const auto json = nlohmann::json::parse(read_text(folder_.path() / "cut" / "run.json"));
    const std::string status = json.at("status");
    EXPECT_TRUE(status == "running" || status == "failed") << status;
  }

  void expect_named(const Ending& ending) const {
    EXPECT_LE(ending.seconds, kDeadline + kSlack);
    const std::string& text = ending.output;
    EXPECT_NE(text.find("watchdog: rank "), std::string::npos) << text;
    EXPECT_NE(text.find("while: step "), std::string::npos) << text;
    EXPECT_NE(text.find(concat("suspect: rank ", kVictim, " (stopped, killed or cut off)")),
              std::string::npos)
        << text;
  }

  void expect_resumes_to_the_same_bits() {
    const auto resumed = train("cut", kLayout + "--resume auto", kRanks);
    ASSERT_EQ(resumed.code, 0) << resumed.output;
    EXPECT_NE(resumed.output.find("resumed from"), std::string::npos) << resumed.output;
    EXPECT_EQ(run_status(folder_.path() / "cut"), "done");
    const auto whole = train("whole", kLayout, kRanks);
    ASSERT_EQ(whole.code, 0) << whole.output;
    expect_equal_runs("cut", "whole");
    EXPECT_FALSE(fs::exists(folder_.path() / "whole" / "positions")) << "of a run without a hang";
  }
};

// So the survivors live until their own deadline.
TEST_F(LostRank, KilledItIsNamedAndTheRunResumesToTheSameBits) {
  const Ending ending =
      train_and_signal(SIGKILL, "export OMPI_MCA_orte_abort_on_non_zero_status=0; ");
  expect_named(ending);
  expect_unfinished(ending);
  expect_resumes_to_the_same_bits();
}

// mpirun asks the survivors to end with SIGTERM before it kills them.
TEST_F(LostRank, KilledUnderMpirunTheSurvivorsDoNotTakeSigtermForAPoliteStop) {
  const Ending ending = train_and_signal(SIGKILL);
  EXPECT_LE(ending.seconds, kDeadline + kSlack);
  expect_unfinished(ending);
  expect_resumes_to_the_same_bits();
}

TEST_F(LostRank, StoppedItIsNamedAndLeavesNoProcess) {
  const Ending ending = train_and_signal(SIGSTOP);
  expect_named(ending);
  expect_unfinished(ending);
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(process_of(path("cut"), rank), 0) << "rank " << rank << " is still there";
  }
}

// As a batch system suspends a job, or a lid a laptop: nobody waited too long.
TEST_F(LostRank, SuspendedTogetherForLongerThanTheDeadlineAllGoOn) {
  const Ending ending = train_and([&](const std::vector<pid_t>& ranks) {
    for (const pid_t rank : ranks) kill(rank, SIGSTOP);
    std::this_thread::sleep_for(std::chrono::seconds(kDeadline + 2));
    for (const pid_t rank : ranks) kill(rank, SIGCONT);
  });
  EXPECT_EQ(ending.code, 0) << ending.output;
  EXPECT_GT(ending.seconds, kDeadline) << "nothing was suspended";
  EXPECT_EQ(run_status(folder_.path() / "cut"), "done");
}

}  // namespace
}  // namespace convoy::test
