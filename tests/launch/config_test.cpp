#include "launch/config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "launch/lr_schedule.h"

namespace convoy {
namespace {

const std::string kTrainable = R"(
[train]
steps = 100
batch_tokens = 4096
micro_batch = 4
[data]
train = "train.h5"
)";

std::string problems_text(const std::string& toml, int ranks = 1) {
  std::string text;
  for (const auto& p : problems_of(parse_config(toml, "test", {}), ranks)) text += p + "\n";
  return text;
}

TEST(Config, DefaultsWithDataAreTrainable) { EXPECT_EQ(problems_text(kTrainable), ""); }

TEST(Config, UnknownKeysAreReportedWithTheNearestKnownOne) {
  const std::string text =
      problems_text(kTrainable + "[model]\nd_modle = 64\n[optimiser]\nlr = 1\n");
  EXPECT_NE(text.find("model.d_modle is not a known key; did you mean model.d_model?"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("did you mean optimizer"), std::string::npos) << text;
}

TEST(Config, AllProblemsAreReportedAtOnce) {
  const std::string text = problems_text(
      "[model]\nd_model = 127\nqk_norm = 3\n[train]\nsteps = 1\ntokens = 2\n[data]\ntrian = 1\n");
  for (const char* part :
       {"model.d_model 127 is not divisible", "model.qk_norm must be true",
        "exactly one of train.steps", "data.trian is not a known key", "data.train is missing"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n in \n" << text;
  }
}

TEST(Config, AWrongTypeOrChoiceNamesWhatIsExpected) {
  EXPECT_NE(
      problems_text("[model.conv]\nkind = \"fancy\"\n").find("none, static, headwise, lowrank"),
      std::string::npos);
  EXPECT_NE(problems_text("[optimizer]\nbetas = [0.9]\n").find("a list of two numbers"),
            std::string::npos);
  EXPECT_NE(problems_text("[train]\nsteps = 1.5\n").find("a whole number"), std::string::npos);
}

TEST(Config, ASettingWithoutEffectIsAnError) {
  EXPECT_NE(problems_text(kTrainable + "[model.conv]\nrank = 8\n").find("has no effect"),
            std::string::npos);
  EXPECT_NE(problems_text(kTrainable + "[lr_schedule]\ncooldown = 0.5\n").find("has no effect"),
            std::string::npos);
}

TEST(Config, ABatchThatDoesNotDivideNamesTheNearestThatDoes) {
  const std::string text = problems_text(kTrainable, 3);
  EXPECT_NE(text.find("use 3072 or 6144"), std::string::npos) << text;
}

TEST(Config, ALayoutThatCannotBeIsRefusedWithNumbersAndRemedy) {
  struct Refusal {
    std::string parallel;
    int ranks;
    const char* message;
  };
  const std::vector<Refusal> refusals = {
      {"dp = 3", 2, "2 ranks cannot form the mesh pp 1 x dp 3"},
      {"pp = 3", 4, "4 ranks cannot form the mesh"},
      {"dp = 8", 8, "train.batch_tokens 4096 is not a multiple of 8192"},
      {"pp = 2\nschedule = \"interleaved\"\nvirtual_stages = 1", 2, "virtual_stages to 2 or more"},
      {"pp = 2\nschedule = \"1f1b\"\nvirtual_stages = 2", 2, "set virtual_stages to 1"},
      {"schedule = \"fastest\"", 1, "gpipe, 1f1b, interleaved, zb-h1, zb-v"},
      {"zero = 4", 1, "parallel.zero is 4; use 0"},
      {"tp = 3", 3, "parallel.tp = 3 does not divide model.n_heads = 4"},
      {"ep = 2", 2, "set parallel.ep = 1"},
      {"communication_deadline_s = -1", 2, "parallel.communication_deadline_s is -1; use 0 (off)"},
      {"sequence_parallel = true", 1, "parallel.sequence_parallel is set but has no effect"}};
  for (const auto& [parallel, ranks, message] : refusals) {
    const std::string text =
        problems_text(concat(kTrainable, "[parallel]\n", parallel, "\n"), ranks);
    EXPECT_NE(text.find(message), std::string::npos) << parallel << "\n" << text;
  }
}

TEST(Config, AModelWithFewerLayersThanStagesIsRefused) {
  const std::string text = problems_text(kTrainable + "[parallel]\npp = 8\n", 8);
  EXPECT_NE(text.find("parallel.schedule = \"1f1b\": "), std::string::npos) << text;
  EXPECT_EQ(problems_text(kTrainable + "[parallel]\npp = 4\nzero = 3\n", 4), "");
}

TEST(Config, ResolvedConfigurationsReadBackAsThemselves) {
  const RunConfig config =
      parse_config(kTrainable, "test",
                   {"model.conv.kind=lowrank", "model.conv.on=['v','q']",
                    "optimizer.betas=[0.8,0.99]", "train.seed=7", "data.val=a b.h5"});
  const std::string text = to_toml(config);
  const RunConfig again = parse_config(text, "resolved", {});
  EXPECT_EQ(to_toml(again), text);
  EXPECT_TRUE(problems_of(again, 1).empty());
  EXPECT_EQ(again.data.val, "a b.h5");
  EXPECT_EQ(again.model.conv.on, (std::vector{ConvSite::q, ConvSite::v}));
}

TEST(Config, BrokenTomlNamesItsLine) {
  try {
    parse_config("[model]\nd_model = = 3\n", "run.toml", {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("run.toml:2:"), std::string::npos) << error.what();
  }
}

TEST(Config, EqualFlopsGiveTheDynamicArmFewerSteps) {
  const std::vector<std::string> budget = {"train.steps=0", "train.flops=1e12"};
  RunConfig plain = parse_config(kTrainable, "test", budget);
  RunConfig dynamic = plain;
  dynamic.model.conv.kind = FilterKind::lowrank;
  EXPECT_GT(total_steps(plain), total_steps(dynamic));
  EXPECT_GT(total_steps(dynamic), 1);
}

TEST(LearningRate, CosineWarmsUpToThePeakAndEndsAtTheMinimum) {
  const RunConfig config =
      parse_config(kTrainable, "test", {"lr_schedule.warmup_steps=10", "lr_schedule.min_lr=1e-4"});
  EXPECT_DOUBLE_EQ(learning_rate(config, 1), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(config, 10), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(config, 55), 1e-4 + 9e-4 * 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(config, 100), 1e-4);
}

TEST(LearningRate, WsdIsConstantUntilItsCooldown) {
  const RunConfig config = parse_config(
      kTrainable, "test",
      {"lr_schedule.kind=wsd", "lr_schedule.cooldown=0.25", "lr_schedule.warmup_fraction=0.1"});
  EXPECT_DOUBLE_EQ(learning_rate(config, 10), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(config, 75), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(config, 81), 1e-3 * (1 - std::sqrt(6.0 / 25)));
  EXPECT_DOUBLE_EQ(learning_rate(config, 100), 0);
}

}  // namespace
}  // namespace convoy
