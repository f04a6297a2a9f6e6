// Whole training runs as processes: stopping, killing and resuming must lose nothing and change
// no bit.
#include "tests/launch/tiny_run.h"

namespace convoy::test {
namespace {

class Run : public TinyRun {
 protected:
  // Starts a run, waits until it has reached a step, sends a signal, returns its exit code.
  ProcessResult train_and_signal(const std::string& output, const std::string& signal,
                                 const std::string& more, int ranks) {
    const std::string metrics = path(output) + "/metrics.jsonl";
    return run_shell(train_command(output, more, ranks) +
                     " & p=$!; for i in $(seq 3000); do [ $(wc -l < " + metrics +
                     " 2>/dev/null || echo 0) -ge 9 ] && break; sleep 0.01; done; kill -" + signal +
                     " $p; wait $p");
  }

  void expect_resume_equals_undisturbed(const std::string& signal, int ranks) {
    const std::string slow = "--set train.batch_tokens=2048 ";  // so that the signal comes in time
    ASSERT_EQ(train("whole", slow, ranks).code, 0);
    const auto stopped = train_and_signal("cut", signal, slow, ranks);
    EXPECT_EQ(stopped.code, 75) << stopped.output;
    const auto status = nlohmann::json::parse(read_text(folder_.path() / "cut" / "run.json"));
    EXPECT_EQ(status.at("status"), "interrupted");
    EXPECT_LT(status.at("tokens"), 40 * 2048) << "the signal came too late to test anything";
    ASSERT_EQ(train("cut", slow + "--resume auto", ranks).code, 0);
    expect_equal_runs("cut", "whole");
  }
};

TEST_F(Run, StoppedBySigusr1AndResumedEqualsUndisturbed) {
  expect_resume_equals_undisturbed("USR1", 1);
}
TEST_F(Run, StoppedBySigtermAndResumedEqualsUndisturbed) {
  expect_resume_equals_undisturbed("TERM", 1);
}
TEST_F(Run, StoppedAndResumedOnTwoRanksEqualsUndisturbed) {
  expect_resume_equals_undisturbed("TERM", 2);
}

TEST_F(Run, KilledAndResumedEqualsUndisturbed) {
  const std::string often = "--set train.batch_tokens=2048 --set checkpoint.every=3 ";
  ASSERT_EQ(train("whole", often).code, 0);
  EXPECT_EQ(train_and_signal("cut", "KILL", often, 1).code, 137);
  const auto resumed = train("cut", often + "--resume auto");
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_NE(resumed.output.find("resumed from"), std::string::npos);
  expect_equal_runs("cut", "whole");
}

TEST_F(Run, TheSameRunTwiceIsBitwiseEqual) {
  ASSERT_EQ(train("a").code, 0);
  ASSERT_EQ(train("b").code, 0);
  expect_equal_runs("a", "b");
}

TEST_F(Run, InInvariantModeAnyNumberOfRanksGivesTheSameBits) {
  // 12 micro-batches: no power of two, and one rank's share is never a whole subtree.
  const std::string invariant =
      "--set numerics.mode=invariant --set train.batch_tokens=1536 --set train.steps=10 ";
  ASSERT_EQ(train("ranks1", invariant).code, 0);
  for (const int ranks : {2, 3, 4}) {
    const std::string name = "ranks" + std::to_string(ranks);
    const auto result = train(name, invariant, ranks);
    ASSERT_EQ(result.code, 0) << result.output;
    expect_equal_runs(name, "ranks1");
  }
}

const std::string kRecall =
    "--set data.train=mqar:pairs=4,vocab=64,keys=variable "
    "--set data.val=mqar:pairs=4,vocab=64,keys=variable,samples=30 --set eval.batches=0 ";

TEST_F(Run, SamplesOfASyntheticTaskDoNotDependOnRanks) {
  const std::string invariant =
      kRecall + "--set numerics.mode=invariant --set train.batch_tokens=1536 --set train.steps=10 ";
  ASSERT_EQ(train("alone", invariant).code, 0);
  const auto result = train("ranks", invariant, 2);
  ASSERT_EQ(result.code, 0) << result.output;
  expect_equal_runs("ranks", "alone");
  EXPECT_EQ(column(folder_.path() / "ranks", "eval", "val_accuracy"),
            column(folder_.path() / "alone", "eval", "val_accuracy"));
}

TEST_F(Run, ASyntheticTaskKilledAndResumedEqualsUndisturbed) {
  const std::string often =
      kRecall + "--set train.batch_tokens=2048 --set checkpoint.every=3 --set eval.every=20 ";
  ASSERT_EQ(train("whole", often).code, 0);
  EXPECT_EQ(train_and_signal("cut", "KILL", often, 1).code, 137);
  const auto resumed = train("cut", often + "--resume auto");
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  expect_equal_runs("cut", "whole");
  EXPECT_EQ(column(folder_.path() / "cut", "eval", "val_accuracy"),
            column(folder_.path() / "whole", "eval", "val_accuracy"));
  const auto sampled = run_convoy("sample " + path("whole") + " --prompt a");
  EXPECT_EQ(sampled.code, 1);
  EXPECT_NE(sampled.output.find("was trained on a synthetic task"), std::string::npos)
      << sampled.output;
}

// One layer of attention cannot look for "the token after my key"; with a convolution that moves
// keys by one it can (arXiv 2312.04927). Guessing among the four values gives 0.25.
TEST_F(Run, OneLayerLearnsRecallWithAConvolutionAndNotWithout) {
  const std::string one_layer =
      "--set data.train=mqar:pairs=4,vocab=64 --set data.val=mqar:pairs=4,vocab=64,samples=256 "
      "--set model.vocab=64 --set model.d_model=64 --set model.n_layers=1 --set model.d_ff=0 "
      "--set model.seq_len=32 --set train.batch_tokens=1024 --set train.micro_batch=32 "
      "--set eval.batches=0 --set train.steps=250 --set optimizer.lr=1e-2 ";
  const auto accuracy = [&](const std::string& name, const std::string& conv) {
    const auto result = train(name, one_layer + "--set 'model.conv=" + conv + "'");
    EXPECT_EQ(result.code, 0) << result.output;
    return column(folder_.path() / name, "eval", "val_accuracy").at(250);
  };
  EXPECT_GT(accuracy("conv", "{kind=\"lowrank\",rank=4,on=[\"q\",\"k\",\"v\"]}"), 0.95);
  EXPECT_LT(accuracy("plain", "{kind=\"none\"}"), 0.5);
}

TEST_F(Run, RecomputeChangesNoBit) {
  ASSERT_EQ(train("plain").code, 0);
  ASSERT_EQ(train("recomputed", "--set parallel.recompute=block").code, 0);
  expect_equal_runs("recomputed", "plain");
}

TEST_F(Run, DivergenceIsNamedAndStopsTheRun) {
  const auto result = train(
      "bad",
      "--set optimizer.lr=1e30 --set optimizer.max_skipped=3 --set lr_schedule.warmup_steps=0");
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.output.find("3 bad steps in a row"), std::string::npos) << result.output;
  const auto status = nlohmann::json::parse(read_text(folder_.path() / "bad" / "run.json"));
  EXPECT_EQ(status.at("status"), "diverged");
}

TEST_F(Run, ADirectoryThatHoldsARunIsNotOverwritten) {
  ASSERT_EQ(train("once").code, 0);
  const auto again = train("once");
  EXPECT_EQ(again.code, 1);
  EXPECT_NE(again.output.find("--resume auto"), std::string::npos) << again.output;
  EXPECT_EQ(train("once", "--resume auto").code, 0);  // done: nothing to do
}

TEST_F(Run, ACheckpointOfAnotherModelIsRefused) {
  ASSERT_EQ(train("small").code, 0);
  const auto result = train("other", "--set model.d_ff=96 --resume " + path("small"));
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.output.find("of another model"), std::string::npos) << result.output;
}

}  // namespace
}  // namespace convoy::test
