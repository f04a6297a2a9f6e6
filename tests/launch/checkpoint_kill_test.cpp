#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <random>
#include <thread>

#include "tests/launch/checkpoint_fixture.h"

namespace convoy::test {
namespace {

// Saves one checkpoint after the other until it is killed.
[[noreturn]] void save_forever(const std::filesystem::path& root, std::int64_t first) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  CheckpointWriter writer(*backend, {root, 2, true});
  for (std::int64_t step = first;; ++step) {
    SmallModel model(step);
    writer.save(step, texts_of(step), model.records());
  }
}

TEST(CheckpointKill, AKillAtAnyMomentLeavesAWholeCheckpoint) {
  const TemporaryFolder folder;
  std::mt19937_64 random(2);
  std::int64_t newest = 0;
  int progressed = 0;
  for (int round = 0; round < 40; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_forever(folder.path(), newest + 1);
    std::this_thread::sleep_for(std::chrono::microseconds(2000 + random() % 40000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto latest = find_latest(folder.path());
    if (!latest) continue;  // killed before the first was whole
    ASSERT_TRUE(verify_checkpoint(*latest).empty()) << *latest;
    const auto checkpoint = Checkpoint::open(folder.path());
    expect_consistent(checkpoint);
    ASSERT_GE(checkpoint.manifest().step, newest) << "a finished checkpoint was lost";
    progressed += checkpoint.manifest().step > newest ? 1 : 0;
    newest = checkpoint.manifest().step;
  }
  EXPECT_GT(progressed, 10);
}

}  // namespace
}  // namespace convoy::test
