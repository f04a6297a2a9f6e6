// Layouts of several ranks on GPUs, as processes under mpirun with NCCL, against one rank on a GPU.
// Where there are fewer GPUs than ranks they share them, over sockets of the loopback device:
// right, and slow. Skipped where there is no GPU.
#include "core/device.h"
#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

constexpr const char* kModel = R"(
[model]
d_model = 32
n_layers = 4
n_heads = 4
n_kv_heads = 2
d_ff = 48
seq_len = 16
qk_norm = true
[model.conv]
kind = "lowrank"
on = ["q", "k", "v", "o", "gate", "up", "down"]
rank = 8
init = "normal"
[train]
steps = 8
batch_tokens = 128
micro_batch = 1
device = "cuda"
[eval]
batches = 5
[checkpoint]
async = false
)";

const std::vector<std::string> kInvariant = {"numerics.mode=invariant"};

class GpuLayouts : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda_device_count() == 0) GTEST_SKIP() << "there is no GPU here: left out";
  }

  RunOutcome run(const LayoutCase& layout, const std::string& name,
                 const std::vector<std::string>& more) {
    const auto file = lab_.folder(name + ".toml");
    replace_text(file, to_toml(lab_.config(layout, more)));
    // NCCL takes ranks of one host id for one host, where each needs a GPU of its own.
    const std::string share =
        layout.ranks() > cuda_device_count()
            ? "export NCCL_HOSTID=host$OMPI_COMM_WORLD_RANK NCCL_P2P_DISABLE=1 NCCL_SHM_DISABLE=1 "
              "NCCL_SOCKET_IFNAME=lo; "
            : "";
    const auto result = run_shell(concat(kSource, "/launch/run_mpi -n ", layout.ranks(), " sh -c '",
                                         share, "exec ", kConvoy, " train ", file.string(),
                                         " --output ", lab_.folder(name).string(), "'"));
    EXPECT_EQ(result.code, 0) << result.output;
    return result.code == 0 ? lab_.outcome(name) : RunOutcome();
  }

  static std::string folder_of(const LayoutCase& layout) {
    std::string name = layout.describe();
    std::replace(name.begin(), name.end(), ' ', '_');
    return name;
  }
  static void expect_near(const RunOutcome& a, const RunOutcome& b, double relative) {
    ASSERT_EQ(a.losses.size(), b.losses.size());
    for (const auto& [step, loss] : a.losses) {
      EXPECT_NEAR(loss, b.losses.at(step), relative * loss) << "step " << step;
    }
  }

  LayoutLab lab_{kModel};
};

TEST_F(GpuLayouts, DataPipelineZeroAndRecomputeTrainTheSameBits) {
  const RunOutcome one = run({}, "one", kInvariant);
  ASSERT_EQ(one.losses.size(), 8u);
  EXPECT_LT(one.losses.at(8), one.losses.at(1)) << "it learns nothing";
  const std::vector<LayoutCase> layouts = {{2, 0, 1},
                                           {4, 1, 1},
                                           {2, 2, 2, "1f1b"},
                                           {4, 3, 1, "1f1b", "block"},
                                           {1, 0, 4, "gpipe"},
                                           {1, 0, 4, "1f1b"},
                                           {1, 0, 2, "interleaved"},
                                           {1, 0, 4, "zb-h1"},
                                           {2, 3, 2, "zb-v"},
                                           {1, 0, 1, "1f1b", "block"}};
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    SCOPED_TRACE(layouts[i].describe());
    expect_same_bits(run(layouts[i], concat("layout", i), kInvariant), one);
  }
}

TEST_F(GpuLayouts, Bf16TrainsTheSameBitsWithAndWithoutZero) {
  auto more = kInvariant;
  more.emplace_back("train.precision=bf16");
  const RunOutcome one = run({}, "one", more);
  for (const int zero : {1, 2, 3}) {
    const LayoutCase layout{2, zero, 1};
    SCOPED_TRACE(layout.describe());
    expect_same_bits(run(layout, concat("zero", zero), more), one);
  }
}

TEST_F(GpuLayouts, TensorAndContextParallelFollowOneRank) {
  const std::vector<std::string> more = {"train.precision=f64"};
  const RunOutcome one = run({}, "one", more);
  const LayoutCase tp{.tp = 2}, sp{.tp = 2, .sequence_parallel = true}, cp{.cp = 2};
  const LayoutCase both{.tp = 2, .cp = 2, .sequence_parallel = true},
      mixed{.dp = 2, .zero = 1, .tp = 2};
  for (const LayoutCase& layout : {tp, sp, cp, both, mixed}) {
    SCOPED_TRACE(layout.describe());
    expect_near(run(layout, folder_of(layout), more), one, 1e-9);
  }
}

TEST_F(GpuLayouts, TheDefaultModeOnFourRanksFollowsOne) {
  const RunOutcome one = run({}, "one", {"train.precision=f64"});
  for (const LayoutCase& layout : {LayoutCase{4, 0, 1}, {4, 1, 1}, {2, 2, 2}, {4, 3, 1}}) {
    SCOPED_TRACE(layout.describe());
    expect_near(run(layout, folder_of(layout), {"train.precision=f64"}), one, 1e-9);
  }
}

}  // namespace
}  // namespace convoy::test
