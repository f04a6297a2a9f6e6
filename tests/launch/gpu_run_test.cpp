// Whole training runs on a GPU, as processes: the same bits again, resumed or not, and the curve of
// the CPU. Skipped where there is no GPU.
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/device.h"
#include "core/random.h"
#include "tests/launch/process.h"
#include "tests/launch/temporary_folder.h"

namespace convoy::test {
namespace {

class GpuRun : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "there is no GPU here: left out";
    const RandomStream random(1, "text");
    std::string text;
    for (std::uint64_t i = 0; i < 200000; ++i) {
      text += "the cat sat on a mat.\n"[random.bits(i / 3)[0] % 22];
    }
    replace_text(folder_.path() / "text.txt", text);
    const auto made = run_convoy("prepare --input " + path("text.txt") +
                                 " --tokenizer bytes --output " + path("text.h5"));
    ASSERT_EQ(made.code, 0) << made.output;
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  // A model with every kind of part, of sizes that the fast kernels take.
  const std::string model_ =
      "--set model.d_model=128 --set model.d_ff=256 --set model.n_heads=4 --set model.seq_len=128 "
      "--set model.qk_norm=true --set model.conv.rank=16 ";
  std::string command(const std::string& output, const std::string& more) {
    return kConvoy + " train " + kSource +
           "/launch/configs/tiny.toml --set data.train=" + path("text.h5") +
           " --set data.val=" + path("text.h5") +
           " --set eval.batches=4 --set train.steps=40 --set train.batch_tokens=2048 " + model_ +
           "--output " + path(output) + " " + more;
  }
  void train(const std::string& output, const std::string& more) {
    const auto result = run_shell(command(output, more));
    ASSERT_EQ(result.code, 0) << result.output;
  }
  std::map<std::int64_t, double> losses(const std::string& output) {
    return column(folder_.path() / output, "train", "train_loss");
  }
  void expect_near(const std::string& a, const std::string& b, double relative) {
    const auto first = losses(a), second = losses(b);
    ASSERT_EQ(first.size(), 40u);
    for (const auto& [step, loss] : first) {
      EXPECT_NEAR(loss, second.at(step), relative * loss) << "step " << step;
    }
  }

  TemporaryFolder folder_;
};

TEST_F(GpuRun, TwoProcessesGiveTheSameBits) {
  for (const std::string precision : {"bf16", "f32"}) {
    const std::string set = "--set train.device=cuda --set train.precision=" + precision;
    train(precision + "1", set);
    train(precision + "2", set);
    EXPECT_EQ(tensor_sums(folder_.path() / (precision + "1")),
              tensor_sums(folder_.path() / (precision + "2")));
  }
}

TEST_F(GpuRun, ATableOfMeasuredMatmulsGivesTheSameBitsEveryTime) {
  const std::string set = "--set train.device=cuda --set train.precision=bf16 ";
  const auto measured =
      run_convoy("bench matmul " + std::string(kSource) + "/launch/configs/tiny.toml " + model_ +
                 set + "--write " + path("matmuls"));
  ASSERT_EQ(measured.code, 0) << measured.output;
  const std::string with_table = set + "--set numerics.matmul_table=" + path("matmuls");
  train("table1", with_table);
  train("table2", with_table);
  EXPECT_EQ(tensor_sums(folder_.path() / "table1"), tensor_sums(folder_.path() / "table2"));
}

TEST_F(GpuRun, StoppedAndResumedEqualsUndisturbed) {
  const std::string set =
      "--set train.device=cuda --set train.precision=bf16 --set train.batch_tokens=16384 ";
  train("whole", set);
  const std::string metrics = path("cut") + "/metrics.jsonl";
  const auto stopped = run_shell(
      command("cut", set) + " & p=$!; for i in $(seq 2000); do [ $(wc -l < " + metrics +
      " 2>/dev/null || echo 0) -ge 9 ] && break; sleep 0.01; done; kill -TERM $p; wait $p");
  EXPECT_EQ(stopped.code, 75) << stopped.output;
  train("cut", set + "--resume auto");
  EXPECT_EQ(tensor_sums(folder_.path() / "cut"), tensor_sums(folder_.path() / "whole"));
  EXPECT_EQ(losses("cut"), losses("whole"));
}

// The 305M model of arXiv 2606.03825 with convolutions on q, k, v, 3 steps of 2 x 2 windows. Each
// process finds empty caches of kernels; the last one resumes from the first one's second step.
TEST_F(GpuRun, The305MModelGivesTheSameBitsInFreshProcesses) {
  int started = 0;
  const auto run = [&](const std::string& output, const std::string& more) {
    const std::string home = path("home" + std::to_string(++started));
    std::filesystem::create_directories(home);
    const auto result =
        run_shell("HOME=" + home + " XDG_CACHE_HOME=" + home + " CUDA_CACHE_PATH=" + home + " " +
                  kConvoy + " train " + kSource +
                  "/launch/configs/paper_300m.toml --set data.train=" + path("text.h5") +
                  " --set data.pack=stream --set train.device=cuda --set train.precision=bf16"
                  " --set train.steps=3 --set train.batch_tokens=16384 --set train.micro_batch=2"
                  " --set model.conv.kind=lowrank --output " +
                  path(output) + " " + more);
    ASSERT_EQ(result.code, 0) << result.output;
  };
  run("first", "--set checkpoint.at=[2]");
  run("second", "");
  run("resumed", "--resume " + path("first") + "/checkpoints/step_00000002");
  const auto sums = tensor_sums(folder_.path() / "first");
  EXPECT_EQ(tensor_sums(folder_.path() / "second"), sums);
  EXPECT_EQ(tensor_sums(folder_.path() / "resumed"), sums);
  EXPECT_EQ(losses("second"), losses("first"));
  EXPECT_EQ(losses("resumed").at(3), losses("first").at(3));
}

// Sums of up to 512 terms in another order, 40 steps long.
TEST_F(GpuRun, F32FollowsTheCpu) {
  train("cpu", "--set train.device=cpu");
  train("gpu", "--set train.device=cuda");
  expect_near("gpu", "cpu", 40 * 512 * unit_roundoff(DType::f32));
}

TEST_F(GpuRun, Bf16StaysWithinOnePercentOfTheLossInF32) {
  train("f32", "--set train.device=cuda");
  train("bf16", "--set train.device=cuda --set train.precision=bf16");
  expect_near("bf16", "f32", 0.01);
}

TEST_F(GpuRun, ACheckpointOfABf16RunIsEvaluatedAsTheRunDid) {
  train("bf16", "--set train.device=cuda --set train.precision=bf16");
  const auto on_gpu = run_convoy("eval " + path("bf16") + " --batches 4 --json");
  ASSERT_EQ(on_gpu.code, 0) << on_gpu.output;
  const auto trained = column(folder_.path() / "bf16", "eval", "val_loss").rbegin()->second;
  const double found = nlohmann::json::parse(on_gpu.output).at("loss");
  EXPECT_NEAR(found, trained, unit_roundoff(DType::bf16) * trained);
}

TEST_F(GpuRun, RecordsTheCardItRanOn) {
  train("bf16", "--set train.device=cuda --set train.precision=bf16");
  const auto run = nlohmann::json::parse(std::ifstream(folder_.path() / "bf16" / "run.json"));
  const CudaDeviceInfo card = cuda_device_info(0);
  EXPECT_EQ(run.at("device"), card.name);
  EXPECT_NE(run.at("hardware").get<std::string>().find(card.uuid), std::string::npos);
}

}  // namespace
}  // namespace convoy::test
