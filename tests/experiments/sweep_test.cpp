// A sweep skips, shares, refuses, goes on past failures, and exports every point.
#include <set>

#include "core/hdf5.h"
#include "experiments/fit/speeds.h"
#include "tests/experiments/sweep_fixture.h"

namespace convoy::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCurves =
    "run_id,attempt,step,tokens,flops,flops_6nd,wall_s,train_loss,val_loss,lr,grad_norm,"
    "tokens_per_s,mfu,is_cooldown,val_accuracy\n";
constexpr const char* kRuns =
    "run_id,parent_run,arch,size,seed,status,N,N_active,N_non_embedding,D,unique_tokens,C,C_linear,"
    "C_attention,C_head,C_conv,C_router,flop_convention,seq_len,vocab,batch_tokens,steps,peak_lr,"
    "schedule,val_loss,val_loss_se,val_bits_per_byte,wall_s,ranks,device,device_hours,mean_mfu,git,"
    "config_hash,"
    "val_accuracy,last_token_accuracy\n";

TEST_F(Sweep, TrainsEveryRunAndExportsEveryPoint) {
  write_manifest("m.toml", base() + two_arms() + size("S", 16) + plan());
  const auto result = sweep("run", "m.toml", "store");
  ASSERT_EQ(result.code, 0) << result.output;
  const std::string curves = read_text(path("store_output/curves.csv"));
  const std::string runs = read_text(path("store_output/runs.csv"));
  EXPECT_TRUE(curves.starts_with(kCurves)) << curves.substr(0, 300);
  EXPECT_TRUE(runs.starts_with(kRuns)) << runs.substr(0, 600);
  const auto plain = folders("store")[1];
  std::size_t steps = 0;
  for (const auto& folder : folders("store")) {
    steps += column(folder, "train", "train_loss").size();
  }
  EXPECT_EQ(count(curves, "\n"), steps + 1);
  EXPECT_EQ(count(runs, ",done,"), 2u);
  EXPECT_EQ(count(read_text(path("store_output/curves.jsonl")), "\n"), steps);
  const Hdf5File tables(path("store_output/tables.h5"), Hdf5File::Mode::read);
  EXPECT_EQ(tables.read<double>("curves/train_loss").size(), steps);
  EXPECT_EQ(tables.read_strings("runs/arch"), (std::vector<std::string>{"transformer", "conv"}));
  EXPECT_TRUE(fs::exists(path("store_output/runs/conv-S-25600tokens-seed0/run.json")));
}

TEST_F(Sweep, ItsReportIsOnePageThatNamesEveryRun) {
  write_manifest("m.toml", base() + two_arms() + size("S", 16) + plan());
  ASSERT_EQ(sweep("run", "m.toml", "store").code, 0);
  write_manifest("more.toml", base() + two_arms() + size("S", 16) + plan("seeds = [0, 1]\n"));
  const auto result = sweep("report", "more.toml", "store");
  ASSERT_EQ(result.code, 0) << result.output;
  const std::string page = read_text(path("store_output/report.html"));
  for (const char* name : {"transformer-S-25600tokens-seed0", "conv-S-25600tokens-seed1"})
    EXPECT_EQ(count(page, std::string("<td>") + name + "</td>"), 1u) << name;
  EXPECT_EQ(count(page, "planned, never started"), 2u);
  EXPECT_EQ(count(page, "<code>convoy train "), 4u);
  const auto again = run_convoy("report " + path("store_output") + " --output " + path("page"));
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_EQ(read_text(path("page/report.html")), page);
  const auto refused = run_convoy("report " + path("store_output") + " " + path("store_output"));
  EXPECT_EQ(refused.code, 1);
  EXPECT_NE(refused.output.find("a sweep is reported alone"), std::string::npos) << refused.output;
}

TEST_F(Sweep, TimesEveryArmOnceAtEverySizeWithoutTraining) {
  write_manifest("m.toml",
                 base() + two_arms() + size("S", 16) + size("M", 32) + plan("seeds = [0, 1]\n"));
  const auto result = sweep("time", "m.toml", "store", "--rounds 2 --repeats 3 --sequences 4");
  ASSERT_EQ(result.code, 0) << result.output;
  EXPECT_NE(result.output.find("round 2 of 2: 4 models timed"), std::string::npos) << result.output;
  EXPECT_FALSE(fs::exists(path("store"))) << "it trained";
  const std::string csv = read_text(path("store_output/speeds.csv"));
  for (const char* row :
       {"transformer,S,4,32,", "conv,S,4,32,", "transformer,M,4,32,", "conv,M,4,32,"})
    EXPECT_EQ(count(csv, row), 1u) << row << " in\n" << csv;
  const Speeds speeds = read_speeds(path("store_output/speeds.csv"));
  EXPECT_EQ(speeds.flops_per_s.size(), 4u);
  EXPECT_GT(speeds.ratio("conv", "transformer", "M"), 0);
}

TEST_F(Sweep, ASecondStartTrainsNothing) {
  write_manifest("m.toml", base() + two_arms() + size("S", 16) + plan());
  ASSERT_EQ(sweep("run", "m.toml", "store").code, 0);
  const std::string before = read_text(path("store_output/curves.csv"));
  const auto again = sweep("run", "m.toml", "store");
  EXPECT_EQ(again.code, 0);
  EXPECT_EQ(count(again.output, "done before"), 2u) << again.output;
  EXPECT_EQ(count(again.output, "started"), 0u) << again.output;
  EXPECT_EQ(read_text(path("store_output/curves.csv")), before);
}

TEST_F(Sweep, TwoManifestsThatShareRunsShareThem) {
  write_manifest("one.toml", base() + two_arms() + size("S", 16) + plan());
  write_manifest("two.toml", base() +
                                 "[arch.baseline]\n[arch.static]\nmodel.conv = { kind = \"static\" "
                                 "}\n" +
                                 size("small", 16) + plan());
  ASSERT_EQ(sweep("run", "one.toml", "store").code, 0);
  const auto second = sweep("run", "two.toml", "store");
  ASSERT_EQ(second.code, 0) << second.output;
  EXPECT_EQ(count(second.output, "baseline-small-25600tokens-seed0: done before"), 1u)
      << second.output;
  EXPECT_EQ(folders("store").size(), 3u);
  EXPECT_EQ(count(read_text(path("store_output/runs.csv")), ",baseline,small,0,done,"), 1u);
}

TEST_F(Sweep, ABranchEqualsTheSameRunFromScratchBitForBit) {
  write_manifest("m.toml", base() + "[arch.transformer]\n" + size("S", 16) + plan() + branches());
  ASSERT_EQ(sweep("run", "m.toml", "store").code, 0);
  const fs::path branch =
      fs::canonical(path("store_output/runs/transformer-S-25600tokens-seed0-0.5x"));
  EXPECT_EQ(column(branch, "train", "train_loss").begin()->first, 41) << "it should be a branch";
  const auto scratch =
      run_convoy("train " + (branch / "planned.toml").string() + " --output " + path("scratch"));
  ASSERT_EQ(scratch.code, 0) << scratch.output;
  EXPECT_EQ(tensor_sums(branch), tensor_sums(path("scratch")));
  EXPECT_EQ(column(branch, "eval", "val_loss").rbegin()->second,
            column(path("scratch"), "eval", "val_loss").rbegin()->second);
}

TEST_F(Sweep, ABranchThatTheLongRunHasPassedIsRefused) {
  write_manifest("m.toml", base() + "[arch.transformer]\n" + size("S", 16) + plan() + branches());
  ASSERT_EQ(sweep("run", "m.toml", "store").code, 0);
  const fs::path branch =
      fs::canonical(path("store_output/runs/transformer-S-25600tokens-seed0-0.5x"));
  const fs::path trunk =
      fs::canonical(path("store_output/runs/transformer-S-25600tokens-seed0-1x"));
  const std::string train = "train " + (branch / "planned.toml").string() +
                            " --resume auto --output " + path("late") + " --branch-from " +
                            trunk.string();
  const auto late = run_convoy(train);  // the long run's last checkpoint, deep in its cooldown
  EXPECT_EQ(late.code, 1);
  EXPECT_NE(late.output.find("the learning rate of step"), std::string::npos) << late.output;
  const auto other = run_convoy(train + "/checkpoints/step_00000040 --set train.seed=7");
  EXPECT_EQ(other.code, 1);
  EXPECT_NE(other.output.find("train.seed is 0 there and 7 here"), std::string::npos)
      << other.output;
}

TEST_F(Sweep, OneRunThatFailsOrDivergesDoesNotStopTheOthers) {
  write_manifest("m.toml", base() +
                               "[arch.transformer]\n[arch.broken]\ndata.val = \"nowhere.h5\"\n"
                               "[arch.wild]\noptimizer.lr = 1e30\noptimizer.max_skipped = 3\n" +
                               size("S", 16) + plan() + "[launch]\nretries = 1\n");
  const auto result = sweep("run", "m.toml", "store");
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.output.find("1 done, 1 diverged, 1 failed, of 3 runs"), std::string::npos)
      << result.output;
  EXPECT_EQ(count(result.output, "broken-S-25600tokens-seed0: try 2"), 1u) << result.output;
  EXPECT_NE(result.output.find("nowhere.h5"), std::string::npos) << result.output;
  const auto status = sweep("status", "m.toml", "store");
  EXPECT_EQ(count(status.output, "wild-S-25600tokens-seed0         diverged "), 1u)
      << status.output;
  EXPECT_EQ(count(status.output, "broken-S-25600tokens-seed0       failed "), 1u) << status.output;
  const auto again = sweep("run", "m.toml", "store");
  EXPECT_EQ(count(again.output, "diverged before"), 1u) << again.output;
}

TEST_F(Sweep, AChangedConfigurationUnderAnExistingIdIsRefused) {
  write_manifest("m.toml", base() + "[arch.transformer]\n" + size("S", 16) + plan());
  ASSERT_EQ(sweep("run", "m.toml", "store").code, 0);
  const fs::path run = folders("store")[0];
  std::string config = read_text(run / "config.toml");
  config.replace(config.find("lr = 0.001"), 10, "lr = 0.002");
  replace_text(run / "config.toml", config);
  fs::remove(run / "run.json");  // so that the sweep wants to go on with it
  const auto result = sweep("run", "m.toml", "store");
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.output.find("optimizer.lr is 0.002 there, 0.001 here"), std::string::npos)
      << result.output;
}

TEST_F(Sweep, OtherDataUnderTheSameNameAreRefused) {
  write_manifest("m.toml", base() + "[arch.transformer]\n" + size("S", 16) + plan());
  ASSERT_EQ(sweep("run", "m.toml", "store").code, 0);
  fs::remove(folders("store")[0] / "run.json");
  prepare_text("train.h5", "CONTRIBUTING.md");
  const auto result = sweep("run", "m.toml", "store");
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.output.find("was trained on other data"), std::string::npos) << result.output;
}

TEST_F(Sweep, ASyntheticTaskExportsItsAccuracies) {
  const std::string task = "mqar:pairs=2,keys=variable,vocab=64,samples=";
  write_manifest("m.toml",
                 "schema = 1\nname = \"recall\"\n[base.model]\nvocab = 64\nseq_len = 32\n"
                 "[base.train]\nbatch_tokens = 256\nmicro_batch = 2\n[base.data]\ntrain = \"" +
                     task + "500\"\nval = \"" + task + "50\"\n[arch.transformer]\n" +
                     size("S", 16) + "[plan]\nmode = \"steps\"\nsteps = [20]\n");
  const auto result = sweep("run", "m.toml", "store");
  ASSERT_EQ(result.code, 0) << result.output;
  const std::string table = read_text(path("store_output") + "/runs.jsonl");
  const auto row = nlohmann::json::parse(table);
  EXPECT_EQ(row.at("status"), "done");
  EXPECT_TRUE(row.at("val_bits_per_byte").is_null());
  const auto last = column(folders("store")[0], "eval", "val_accuracy").at(20);
  EXPECT_NEAR(row.at("val_accuracy").get<double>(), last, 1e-8);  // 9 digits
  EXPECT_GT(row.at("last_token_accuracy"), 0.5);
  EXPECT_LT(row.at("last_token_accuracy"), 1);
}

TEST_F(Sweep, MoreTokensThanTheFileHasAreRefused) {
  write_manifest("m.toml", base() + "[arch.transformer]\n" + size("S", 16) +
                               "[plan]\nmode = \"grid\"\ntokens = [25600]\n");
  const auto result = sweep("plan", "m.toml", "store");
  EXPECT_EQ(result.code, 1);
  EXPECT_NE(result.output.find("allow them by plan.epochs (now 1)"), std::string::npos)
      << result.output;
}

TEST_F(Sweep, OneChainAloneIsTrainedByIndexOrById) {
  write_manifest("m.toml", base() + two_arms() + size("S", 16) + plan() + branches());
  const auto first = sweep("run", "m.toml", "store", "--index 1");
  ASSERT_EQ(first.code, 0) << first.output;
  EXPECT_NE(first.output.find("2 done, 0 diverged, 0 failed, of 2 runs"), std::string::npos)
      << first.output;
  const auto second = sweep("run", "m.toml", "store", "--id transformer-S-25600tokens-seed0-0.5x");
  EXPECT_NE(second.output.find("2 done"), std::string::npos) << second.output;
  EXPECT_EQ(sweep("run", "m.toml", "store", "--index 2").code, 1);
  EXPECT_EQ(folders("store").size(), 4u);
}

TEST_F(Sweep, MpirunTrainsTheSameBitsAsOneRank) {
  write_manifest("m.toml", base() + "[arch.conv]\nmodel.conv = { kind = \"lowrank\" }\n" +
                               size("S", 16) + plan());
  write_manifest("mpi.toml",
                 read_text(path("m.toml")) + "[launch]\nlauncher = \"mpirun\"\nranks = 2\n");
  ASSERT_EQ(sweep("run", "m.toml", "alone").code, 0);
  const auto result = sweep("run", "mpi.toml", "ranks");
  ASSERT_EQ(result.code, 0) << result.output;
  ASSERT_EQ(folders("alone")[0].filename(), folders("ranks")[0].filename());
  EXPECT_EQ(tensor_sums(folders("alone")[0]), tensor_sums(folders("ranks")[0]));
}

TEST_F(Sweep, TheScriptForSlurmNamesEveryOpenChain) {
  write_manifest("m.toml", base() + two_arms() + size("S", 16) + plan() + branches() +
                               "[launch]\nlauncher = \"sbatch\"\nranks = 4\n"
                               "array_max_parallel = 3\nsbatch_options = [\"--time=10\"]\n");
  const auto script = sweep("submit", "m.toml", "store", "--dry-run");
  ASSERT_EQ(script.code, 0) << script.output;
  for (const char* line : {"#SBATCH --array=0-1%3\n", "#SBATCH --ntasks=4\n", "#SBATCH --time=10\n",
                           "#SBATCH --signal=B:TERM@120\n", "scontrol requeue"}) {
    EXPECT_NE(script.output.find(line), std::string::npos) << line << script.output;
  }
  write_manifest("script.sh", script.output);
  EXPECT_EQ(run_shell("bash -n " + path("script.sh")).code, 0);
  EXPECT_EQ(sweep("run", "m.toml", "store").code, 1) << "without an allocation";
}

}  // namespace
}  // namespace convoy::test
