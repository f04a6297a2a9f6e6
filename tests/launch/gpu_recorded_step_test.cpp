// Training on a GPU whose steps are CUDA graphs, against training whose steps are launched one
// operation after the other: every bit of losses, norms, validation and the last checkpoint.
// Skipped where there is no GPU.
#include "core/device.h"
#include "parallel/nccl_communicator.h"
#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

// Sizes that the fast kernels take.
constexpr const char* kModel = R"(
[model]
d_model = 128
n_layers = 2
n_heads = 4
d_ff = 256
seq_len = 64
qk_norm = true
[model.conv]
kind = "lowrank"
rank = 16
on = ["q", "k", "v", "o", "gate", "up", "down"]
[train]
steps = 14
batch_tokens = 1024
micro_batch = 4
precision = "bf16"
device = "cuda"
[optimizer]
lr = 3e-3
[lr_schedule]
warmup_steps = 3
[eval]
every = 5
batches = 3
[checkpoint]
async = false
)";

class GpuRecordedStep : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "there is no GPU here: left out";
  }

  struct Trained {
    bool replayed;  // the last step
    std::string status;
  };
  Trained train(const std::string& name, const std::vector<std::string>& more,
                bool resume = false) {
    const RunConfig run = lab_.config({}, more);
    require_trainable(run, 1);
    const auto backend = make_cuda_backend(run.numerics, 0);
    const auto world = make_nccl_communicator(make_self_communicator(), *backend);
    TrainOptions options{lab_.folder(name), {}, {}};
    if (resume) options.resume.emplace();
    Trainer trainer(run, options, *backend, *world);
    trainer.run();
    return {trainer.recording().replayed(), trainer.recording().status()};
  }
  static std::vector<std::string> launched(std::vector<std::string> more) {
    more.emplace_back("train.cuda_graph=false");
    return more;
  }

  void expect_same(const std::string& what, const std::vector<std::string>& more) {
    SCOPED_TRACE(what);
    const Trained graph = train(what + " graph", more);
    EXPECT_TRUE(graph.replayed) << graph.status;
    EXPECT_FALSE(train(what, launched(more)).replayed);
    expect_same_bits(lab_.outcome(what + " graph"), lab_.outcome(what));
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

  const LayoutLab lab_{kModel};
};

// Documents in the windows, so that each step counts other targets; four micro-batches; evaluation
// between steps; a learning rate that changes with each.
TEST_F(GpuRecordedStep, HasTheBitsOfAStepThatIsLaunched) {
  expect_same("bf16", {});
  expect_same("f32", {"train.precision=f32"});
  expect_same("one micro-batch", {"train.batch_tokens=256", "model.tie_embeddings=true"});
  expect_same("whole windows", {"data.pack=stream"});
}

TEST_F(GpuRecordedStep, OfOtherConvolutionsAndRecomputeHasThemToo) {
  expect_same("static", {"model.conv={kind=\"static\",on=[\"q\",\"k\",\"v\"]}"});
  expect_same("headwise", {"model.conv={kind=\"headwise\",on=[\"q\",\"k\",\"v\"]}"});
  expect_same("none", {"model.conv={kind=\"none\"}", "model.qk_norm=false"});
  expect_same("recompute", {"parallel.recompute=block"});
}

TEST_F(GpuRecordedStep, SkipsABadStepAsALaunchedOneDoes) {
  const std::vector<std::string> spikes = {"optimizer.spike_factor=1.05",
                                           "optimizer.max_skipped=100"};
  expect_same("spikes", spikes);
  EXPECT_GT(skipped("spikes graph"), 0) << "nothing was tested";
  EXPECT_EQ(skipped("spikes graph"), skipped("spikes"));
  const std::vector<std::string> wild = {"optimizer.lr=1e30", "optimizer.max_skipped=100",
                                         "lr_schedule.warmup_steps=0"};
  EXPECT_TRUE(train("wild graph", wild).replayed);
  train("wild", launched(wild));
  EXPECT_EQ(tensor_sums(lab_.folder("wild graph")), tensor_sums(lab_.folder("wild")));
  EXPECT_GT(skipped("wild"), 7) << "the loss stayed finite";
  EXPECT_EQ(skipped("wild graph"), skipped("wild"));
}

TEST_F(GpuRecordedStep, GoesOnFromACheckpointWithTheSameBits) {
  const std::vector<std::string> often = {"checkpoint.every=4", "checkpoint.keep=9"};
  train("whole", launched(often));
  train("cut", often);
  lab_.forget_after("cut", 8);
  EXPECT_TRUE(train("cut", often, true).replayed);
  expect_same_bits(lab_.outcome("cut"), lab_.outcome("whole"));
}

TEST_F(GpuRecordedStep, SaysWhyItIsNotRecorded) {
  EXPECT_EQ(train("off", launched({})).status, "train.cuda_graph is false");
  const Trained invariant = train("invariant", {"numerics.mode=invariant", "train.steps=4"});
  EXPECT_FALSE(invariant.replayed);
  EXPECT_NE(invariant.status.find("invariant"), std::string::npos) << invariant.status;
}

}  // namespace
}  // namespace convoy::test
