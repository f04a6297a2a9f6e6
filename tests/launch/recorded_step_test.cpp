// Training whose steps are recorded and replayed, against training whose steps run: every bit of
// the losses, norms, validation and last checkpoint. The backend is a CPU that records as a GPU
// does, so that whatever differs from step to step must have come through memory.
#include "tests/core/replaying_backend.h"
#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

constexpr const char* kModel = R"(
[model]
d_model = 16
n_layers = 2
n_heads = 2
d_ff = 24
seq_len = 64
qk_norm = true
[model.conv]
kind = "lowrank"
rank = 2
on = ["q", "k", "v", "o", "gate", "up", "down"]
[train]
steps = 12
batch_tokens = 512
micro_batch = 2
[optimizer]
lr = 1e-2
[lr_schedule]
warmup_steps = 3
[eval]
every = 5
batches = 2
[checkpoint]
async = false
)";

class RecordedStep : public testing::Test {
 protected:
  const LayoutLab lab_{kModel};

  // Trains once with steps that run and once with recorded ones; how many of these were replayed.
  int expect_same(const std::vector<std::string>& more) {
    plain_ = lab_.run({}, "plain", more);
    const int replayed = train_recorded("recorded", more);
    expect_same_bits(lab_.outcome("recorded"), plain_);
    return replayed;
  }
  int train_recorded(const std::string& name, const std::vector<std::string>& more,
                     bool resume = false) {
    const RunConfig run = lab_.config({}, more);
    require_trainable(run, 1);
    ReplayingBackend backend(run.numerics);
    run_on_threads(1, [&](Communicator& world) {
      TrainOptions options{lab_.folder(name), {}, {}};
      if (resume) options.resume.emplace();
      Trainer(run, options, backend, world).run();
    });
    recorded_ = backend.recorded();
    return backend.replayed();
  }
  std::int64_t skipped(const std::string& name) const {
    std::int64_t count = 0;
    std::istringstream lines(read_text(lab_.folder(name) / "metrics.jsonl"));
    for (std::string line; std::getline(lines, line);) {
      const auto row = nlohmann::json::parse(line);
      count += row.at("kind") == "train" && row.at("skipped").get<bool>() ? 1 : 0;
    }
    return count;
  }

  static constexpr int kSteps = 12, kReplayed = kSteps - RecordedRegion::kPlainRuns;
  RunOutcome plain_;
  int recorded_ = 0;
};

// Windows with document boundaries, so that every step counts other targets; a learning rate that
// changes; evaluation between steps; four micro-batches.
TEST_F(RecordedStep, HasTheBitsOfAStepThatRuns) {
  EXPECT_EQ(expect_same({}), kReplayed);
  EXPECT_EQ(recorded_, 1);
  EXPECT_EQ(plain_.losses.size(), static_cast<std::size_t>(kSteps));
}

TEST_F(RecordedStep, OfOneMicroBatchHasThemToo) {
  EXPECT_EQ(expect_same({"train.batch_tokens=128", "model.tie_embeddings=true"}), kReplayed);
}

TEST_F(RecordedStep, OfF64WithRecomputeHasThemToo) {
  EXPECT_EQ(expect_same({"train.precision=f64", "parallel.recompute=block"}), kReplayed);
}

TEST_F(RecordedStep, OfASplitBackwardHasThemToo) {
  EXPECT_EQ(expect_same({"parallel.schedule=zb-h1"}), kReplayed);
}

TEST_F(RecordedStep, SkipsABadStepAsAStepThatRunsDoes) {
  EXPECT_EQ(expect_same(
                {"optimizer.spike_factor=1.25", "optimizer.lr=1e-3", "optimizer.max_skipped=100"}),
            kReplayed);
  EXPECT_GT(skipped("recorded"), 0) << "nothing was tested";
  EXPECT_LE(skipped("recorded"), kSteps - 3) << "nothing was trained";
  EXPECT_EQ(skipped("recorded"), skipped("plain"));
}

TEST_F(RecordedStep, ThatIsNotFiniteChangesNothing) {
  const std::vector<std::string> wild = {"optimizer.lr=1e30", "optimizer.max_skipped=100",
                                         "lr_schedule.warmup_steps=0"};
  lab_.train({}, "plain", wild);
  EXPECT_EQ(train_recorded("recorded", wild), kReplayed);
  EXPECT_EQ(tensor_sums(lab_.folder("recorded")), tensor_sums(lab_.folder("plain")));
  EXPECT_GT(skipped("recorded"), kSteps / 2);
  EXPECT_EQ(skipped("recorded"), skipped("plain"));
}

TEST_F(RecordedStep, GoesOnFromACheckpointWithTheSameBits) {
  const std::vector<std::string> often = {"checkpoint.every=4", "checkpoint.keep=9"};
  plain_ = lab_.run({}, "plain", often);
  train_recorded("cut", often);
  lab_.forget_after("cut", 8);
  EXPECT_EQ(train_recorded("cut", often, true), kSteps - 8 - RecordedRegion::kPlainRuns);
  expect_same_bits(lab_.outcome("cut"), plain_);
}

// Windows shorter than many of the documents: whether a micro-batch is all of one document decides
// how its attention is computed, so it shapes the step.
TEST_F(RecordedStep, OfChangingShapesHasThemToo) {
  const std::vector<std::string> few = {"model.seq_len=16", "train.batch_tokens=32",
                                        "train.steps=40"};
  const int replayed = expect_same(few);
  EXPECT_GT(replayed, 0);
  EXPECT_EQ(recorded_, 2);
}

// The number of labels shapes a step: with the tasks mixed it differs between micro-batches.
TEST_F(RecordedStep, OfATaskWithFewLabelsHasThemToo) {
  const std::vector<std::string> recall = {
      "model.vocab=64", "data.train=[\"mqar:pairs=2,vocab=64\", \"mqar:pairs=3,vocab=64\"]",
      "data.val=mqar:pairs=2,vocab=64,samples=8", "train.steps=40", "train.batch_tokens=128"};
  const int replayed = expect_same(recall);
  EXPECT_GT(replayed, 0);
  EXPECT_GT(recorded_, 1) << "other numbers of labels are other shapes";
}

TEST_F(RecordedStep, InInvariantModeRunsEveryTime) {
  EXPECT_EQ(expect_same({"numerics.mode=invariant"}), 0);
}

}  // namespace
}  // namespace convoy::test
