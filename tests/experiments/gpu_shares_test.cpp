// Runs side by side are spread over the GPUs of a machine. What a run is given is what its command
// sees, so no GPU is needed here.
#include "experiments/sweep/gpu_shares.h"

#include <cstdlib>
#include <set>

#include "tests/experiments/sweep_fixture.h"

namespace convoy::test {
namespace {

using Names = std::vector<std::string>;

TEST(GpuShares, RunsGoWhereTheFewestAre) {
  GpuShares shares({"0", "1"});
  EXPECT_EQ(shares.take(1), "0");
  EXPECT_EQ(shares.take(1), "1");
  EXPECT_EQ(shares.take(1), "0");
  shares.give_back("1");
  EXPECT_EQ(shares.take(1), "1");
  shares.give_back("0");
  shares.give_back("0");
  EXPECT_EQ(shares.take(1), "0");
}

TEST(GpuShares, ARunOfSeveralRanksHasAGpuForEach) {
  GpuShares shares({"0", "GPU-a1", "2"});
  EXPECT_EQ(shares.take(2), "0,GPU-a1");
  EXPECT_EQ(shares.take(2), "0,2");
  shares.give_back("0,GPU-a1");
  EXPECT_EQ(shares.take(2), "0,GPU-a1");
  EXPECT_EQ(shares.take(8), "0,GPU-a1,2");
}

TEST(GpuShares, WithoutGpusThereIsNothingToGive) {
  GpuShares shares({});
  EXPECT_EQ(shares.take(1), "");
  shares.give_back("");
}

TEST(GpuShares, WhatThisProcessMayNotSeeIsNotGiven) {
  const auto seen = [](const char* value) {
    ::setenv("CUDA_VISIBLE_DEVICES", value, 1);
    return visible_gpus();
  };
  EXPECT_EQ(seen("3,5"), (Names{"3", "5"}));
  EXPECT_EQ(seen("GPU-8b1c"), (Names{"GPU-8b1c"}));
  EXPECT_EQ(seen("2,-1,1"), (Names{"2"}));
  EXPECT_EQ(seen(""), Names{});
  ::unsetenv("CUDA_VISIBLE_DEVICES");
}

// Runs of two ranks start through the script that CONVOY_RUN_MPI names: here one that writes down
// what it sees, and fails.
TEST_F(Sweep, RunsSideBySideSeeDifferentGpus) {
  write_manifest("m.toml",
                 base() + two_arms() + size("S", 16) + plan("seeds = [0, 1]\n") +
                     "[launch]\nlauncher = \"mpirun\"\nranks = 2\nside_by_side = 2\nretries = 0\n");
  const std::string script = path("note_gpus"), notes = path("notes");
  replace_text(script, "#!/bin/sh\necho \"$CUDA_VISIBLE_DEVICES\" >> " + notes + "\nexit 1\n");
  std::filesystem::permissions(script, std::filesystem::perms::owner_all);
  const std::string around = "CUDA_VISIBLE_DEVICES=4,5,6,7 CONVOY_RUN_MPI=" + script + " ";
  const auto result = run_shell(around + sweep_command("run", "m.toml", "store"));
  EXPECT_EQ(result.code, 1) << "the script fails every run";
  ASSERT_TRUE(std::filesystem::exists(notes)) << result.output;
  std::istringstream lines(read_text(notes));
  std::multiset<std::string> seen;
  for (std::string line; std::getline(lines, line);) seen.insert(line);
  EXPECT_EQ(seen.size(), 4u) << result.output;
  EXPECT_EQ(seen.count("4,5"), 2u) << read_text(notes);
  EXPECT_EQ(seen.count("6,7"), 2u) << read_text(notes);
}

// A run of one rank starts the program itself; the sweep says where.
TEST_F(Sweep, ASweepSaysOnWhichGpuARunIs) {
  write_manifest("m.toml",
                 base() + two_arms() + size("S", 16) + plan() + "[launch]\nside_by_side = 2\n");
  const auto spread =
      run_shell("CUDA_VISIBLE_DEVICES=4,7 " + sweep_command("run", "m.toml", "store"));
  EXPECT_EQ(spread.code, 0) << spread.output;
  EXPECT_EQ(count(spread.output, "started on GPU 4"), 1u) << spread.output;
  EXPECT_EQ(count(spread.output, "started on GPU 7"), 1u) << spread.output;
  const auto without =
      run_shell("CUDA_VISIBLE_DEVICES= " + sweep_command("run", "m.toml", "other"));
  EXPECT_EQ(count(without.output, "on GPU"), 0u) << without.output;
}

}  // namespace
}  // namespace convoy::test
