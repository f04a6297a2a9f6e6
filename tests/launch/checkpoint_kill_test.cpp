#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <random>
#include <thread>

#include "tests/launch/checkpoint_fixture.h"

namespace {

// A kill before the n-th call from now that changes folders; negative: none.
std::atomic<int> calls_before_kill{-1};
std::atomic<bool> can_swap{true};

void count_call() {
  if (calls_before_kill >= 0 && calls_before_kill-- == 0) kill(getpid(), SIGKILL);
}

int system_call(long number, auto... arguments) {
  count_call();
  return static_cast<int>(syscall(number, arguments...));
}

}  // namespace

// These stand in for the C library's in the whole test program.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
extern "C" {
int rename(const char* from, const char* to) noexcept {
  return system_call(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  if (!can_swap) return errno = EINVAL, -1;
  return system_call(SYS_renameat2, from_folder, from, to_folder, to, flags);
}
int symlink(const char* target, const char* link) noexcept {
  return system_call(SYS_symlinkat, target, AT_FDCWD, link);
}
int unlinkat(int folder, const char* name, int flags) noexcept {
  return system_call(SYS_unlinkat, folder, name, flags);
}
int mkdir(const char* path, mode_t mode) noexcept {
  return system_call(SYS_mkdirat, AT_FDCWD, path, mode);
}
int fsync(int file) { return system_call(SYS_fsync, file); }
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)

namespace convoy::test {
namespace {

namespace fs = std::filesystem;

void save(const fs::path& root, std::int64_t keep, std::int64_t step) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  CheckpointWriter writer(*backend, {root, keep, true});
  SmallModel model(step);
  writer.save(step, texts_of(step), model.records());
  writer.finish();
}

// Runs in a process of its own and returns how that ended, as waitpid says.
int status_of(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    work();
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

struct KillCase {
  std::int64_t keep, step;  // saved after steps 1 and 2
};

class CheckpointKillPlaces : public testing::TestWithParam<KillCase> {};

TEST_P(CheckpointKillPlaces, AKillBeforeAnyFolderCallLeavesLatestWhole) {
  const auto [keep, step] = GetParam();
  int places = 0;
  for (bool killed = true; killed; ++places) {
    const TemporaryFolder folder;
    for (const std::int64_t s : {1, 2}) save(folder.path(), keep, s);
    const int status = status_of([&, keep = keep, step = step] {
      calls_before_kill = places;
      save(folder.path(), keep, step);
    });
    killed = WIFSIGNALED(status);
    ASSERT_TRUE(killed || status == 0) << status;
    ASSERT_TRUE(fs::exists(folder.path() / "latest")) << "dangling at call " << places;
    std::string note;
    const auto latest = find_latest(folder.path(), &note);
    ASSERT_TRUE(latest && note.empty()) << note << " at call " << places;
    EXPECT_TRUE(verify_checkpoint(*latest).empty());
    const auto checkpoint = Checkpoint::open(*latest);
    expect_consistent(checkpoint);
    EXPECT_GE(checkpoint.manifest().step, 2) << "a durable checkpoint was lost";
    EXPECT_TRUE(killed || checkpoint.manifest().step == step);
    // What comes after a kill cleans up after it.
    save(folder.path(), keep, 4);
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      EXPECT_FALSE(entry.path().filename().string().starts_with(".")) << entry.path();
    }
  }
  EXPECT_GT(places, 15);
}

INSTANTIATE_TEST_SUITE_P(ANewStepAndTheSameAgain, CheckpointKillPlaces,
                         testing::Values(KillCase{2, 3}, KillCase{2, 2}, KillCase{1, 2}));

// Saves one checkpoint after the other until it is killed, and writes a byte when one is whole; six
// steps in turn, so that steps are saved again too and stay small enough for bf16 to hold them.
[[noreturn]] void save_forever(const fs::path& root, std::int64_t first, int whole) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  CheckpointWriter writer(*backend, {root, 2, true});
  for (std::int64_t i = 0;; ++i) {
    const std::int64_t step = first + i % 6;
    SmallModel model(step);
    writer.save(step, texts_of(step), model.records());
    if (i > 0 && write(whole, "1", 1) != 1) _exit(1);  // saving the next waits for the one before
  }
}

// Lets a writer finish `wanted` checkpoints and kills it somewhere in what follows.
void kill_after(const fs::path& root, std::int64_t first, int wanted,
                std::chrono::microseconds later) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) save_forever(root, first, ends[1]);
  close(ends[1]);  // so that a writer that fails ends the read
  char byte = 0;
  for (int i = 0; i < wanted; ++i) ASSERT_EQ(read(ends[0], &byte, 1), 1);
  std::this_thread::sleep_for(later);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ends[0]);
}

TEST(CheckpointKill, AKillAtAnyMomentLeavesAWholeCheckpoint) {
  const TemporaryFolder folder;
  std::mt19937_64 random(2);
  std::int64_t newest = 0;
  for (int round = 0; round < 40; ++round) {
    const int wanted = static_cast<int>(random() % 3);
    kill_after(folder.path(), newest + 1, wanted, std::chrono::microseconds(random() % 10000));
    const auto latest = find_latest(folder.path());
    if (!latest) {
      ASSERT_EQ(wanted + newest, 0) << "a finished checkpoint was lost";
      continue;
    }
    ASSERT_TRUE(verify_checkpoint(*latest).empty()) << *latest;
    const auto checkpoint = Checkpoint::open(folder.path());
    expect_consistent(checkpoint);
    ASSERT_GE(checkpoint.manifest().step, newest + (wanted > 0 ? 1 : 0))
        << "a finished checkpoint was lost";
    newest = checkpoint.manifest().step;
  }
}

TEST(CheckpointFailure, TheSameStepIsReplacedWhereFoldersCannotBeSwapped) {
  const TemporaryFolder folder;
  can_swap = false;
  for (int i = 0; i < 2; ++i) save(folder.path(), 2, 5);
  can_swap = true;
  expect_consistent(Checkpoint::open(folder.path()));
  EXPECT_FALSE(fs::exists(folder.path() / ".step_00000005.old"));
}

TEST(CheckpointFailure, AWriterThatNeverWritesIsNamedAtTheDeadline) {
  const TemporaryFolder folder;
  const auto backend = make_cpu_backend(NumericsMode::fast);
  CheckpointWriter writer(*backend, {.root = folder.path(), .deadline_s = 0.05});
  SmallModel model(3);
  writer.prepare(3);
  writer.save_together(3, texts_of(3), model.records(), {0, 2});
  try {
    writer.finish();
    FAIL() << "published without the shard of rank 2";
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("rank 2 has not written its shard"), std::string::npos) << text;
    EXPECT_NE(text.find("parallel.communication_deadline_s"), std::string::npos) << text;
  }
  EXPECT_FALSE(find_latest(folder.path()));
}

// In a process of its own: HDF5 stays unwell after a file that it could not write.
TEST(CheckpointFailure, AFullDiskIsAnErrorAndTheNextSaveWorks) {
  const TemporaryFolder folder;
  const int status = status_of([&] {
    save(folder.path(), 2, 1);
    signal(SIGXFSZ, SIG_IGN);
    rlimit unlimited{};
    getrlimit(RLIMIT_FSIZE, &unlimited);
    rlimit small = unlimited;
    small.rlim_cur = 3000;
    setrlimit(RLIMIT_FSIZE, &small);
    try {
      save(folder.path(), 2, 2);
      _exit(1);
    } catch (const Error& error) {
      if (std::string(error.what()).find("shard_00000.h5") == std::string::npos) _exit(2);
    }
    if (Checkpoint::open(folder.path()).manifest().step != 1) _exit(3);
    setrlimit(RLIMIT_FSIZE, &unlimited);
    save(folder.path(), 2, 2);
  });
  EXPECT_EQ(status, 0) << "exit code " << WEXITSTATUS(status);
  expect_consistent(Checkpoint::open(folder.path()));
  EXPECT_EQ(Checkpoint::open(folder.path()).manifest().step, 2);
}

}  // namespace
}  // namespace convoy::test
