// Reading manifests: what is known, what is refused, and that all problems come at once.
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/experiments/manifest_fixture.h"

namespace convoy::test {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Manifest, KeepsTheOrderOfItsArmsAndTheFirstIsTheReference) {
  ManifestText text;
  text.archs = "[arch.zebra]\n[arch.apple]\nmodel.qk_norm = true\n";
  const SweepManifest manifest = text.manifest();
  ASSERT_EQ(manifest.archs.size(), 2u);
  EXPECT_EQ(manifest.archs[0].name, "zebra");
  EXPECT_EQ(manifest.compare.reference, "zebra");
}

TEST(Manifest, ReadsEverySectionOfTheSpecification) {
  ManifestText text;
  text.plan =
      "[plan]\nmode = \"isoflop\"\nflops = [1e12, 3e12]\nflops_tolerance = 0.02\n"
      "match = \"flops\"\nmatch_by = \"tokens\"\nflop_convention = \"causal\"\n"
      "param_convention = \"total\"\nseeds = [0, 1]\nexclude = [\"size=M,seed!=0\"]\n";
  text.rest =
      "[rules]\nlr = { transformer = \"1e-3\", conv = \"2e-3\" }\nwarmup_tokens = \"N\"\n"
      "schedule = \"wsd\"\ncooldown = 0.2\nbranch_at = [\"0.5x\", \"1x\"]\n"
      "lr_multipliers = [0.5, 1, 2]\n"
      "[launch]\nlauncher = \"mpirun\"\nranks = { S = 1, M = 2 }\nretries = 2\n"
      "array_max_parallel = 4\nside_by_side = 3\n"
      "[fit]\nlaw = \"power\"\nholdout = \"none\"\n[compare]\nreference = \"conv\"\n";
  const SweepManifest m = text.manifest();
  EXPECT_EQ(m.plan.flops, (std::vector<double>{1e12, 3e12}));
  EXPECT_EQ(m.plan.flop_convention, "causal");
  ASSERT_EQ(m.plan.exclude.size(), 1u);
  EXPECT_EQ(m.plan.exclude[0].conditions[1].key, "seed");
  EXPECT_FALSE(m.plan.exclude[0].conditions[1].equal);
  EXPECT_EQ(m.rules.lr_of("conv"), "2e-3");
  EXPECT_EQ(m.rules.branch_at, (std::vector<double>{0.5, 1}));
  EXPECT_EQ(m.launch.ranks_of("M"), 2);
  EXPECT_EQ(m.launch.side_by_side, 3);
  EXPECT_EQ(m.fit.law, "power");
  EXPECT_EQ(m.compare.reference, "conv");
}

TEST(Manifest, AllProblemsAreReportedAtOnce) {
  ManifestText text;
  text.plan = "[plan]\nmode = \"ladder\"\ntokens_per_parm = [20]\nmatch = \"flop\"\n";
  text.rest = "[rules]\nlr = \"2*(N\"\nbranch_at = [\"half\"]\n[launch]\nranks = 0\n[ruls]\n";
  const std::string complaint = text.complaint();
  for (const char* part :
       {"plan.tokens_per_parm is not a known key; did you mean plan.tokens_per_param?",
        "plan.match = \"flop\" is not known; use one of flops, params, tokens, wallclock",
        "plan.tokens_per_param is missing", "rules.lr: \"2*(N\", column 5",
        "rules.branch_at: \"half\"", "launch.ranks has 0",
        "ruls is not a known key; did you mean rules?"}) {
    EXPECT_TRUE(has(complaint, part)) << part << "\nis not in\n" << complaint;
  }
}

TEST(Manifest, AnUnknownKeyOfALayerIsNamedOnceWithTheNearestOne) {
  ManifestText text;
  text.base += "[base.optimizer]\nweight_decai = 0.1\n";
  const std::string complaint = text.complaint();
  EXPECT_TRUE(has(complaint,
                  "optimizer.weight_decai is not a known key; did you mean "
                  "optimizer.weight_decay? (and 3 more)"))
      << complaint;
}

TEST(Manifest, WhatTheSweepDecidesMayNotBeSetInALayer) {
  ManifestText text;
  text.base += "[base.checkpoint]\ndir = \"x\"\n";
  text.archs += "train.steps = 7\n";
  const std::string complaint = text.complaint();
  EXPECT_TRUE(has(complaint, "base sets checkpoint.dir")) << complaint;
  EXPECT_TRUE(has(complaint, "arch.conv sets train.steps")) << complaint;
}

TEST(Manifest, SettingsWithoutEffectAreRefused) {
  ManifestText text;
  text.plan += "flops = [1e12]\nmatch = \"tokens\"\nmatch_by = \"ffn\"\n";
  text.rest = "[rules]\nschedule = \"cosine\"\ncooldown = 0.1\nbranch_at = [\"1x\"]\n";
  const std::string complaint = text.complaint();
  EXPECT_TRUE(has(complaint, "plan.flops has no effect with mode = \"ladder\"")) << complaint;
  EXPECT_TRUE(has(complaint, "plan.match_by = \"ffn\" has no effect")) << complaint;
  EXPECT_TRUE(has(complaint, "rules.cooldown is 0.1 with schedule = \"cosine\"")) << complaint;
  EXPECT_TRUE(has(complaint, "rules.branch_at needs schedule = \"wsd\"")) << complaint;
}

TEST(Manifest, AnExclusionThatExcludesNothingIsRefused) {
  ManifestText text;
  text.plan += "exclude = [\"size=XL\"]\n";
  EXPECT_TRUE(has(text.complaint(), "\"size=XL\" leaves out no run")) << text.complaint();
}

TEST(Manifest, LaterLayersWinKeyByKey) {
  const std::string merged =
      merge_toml({"a = 1\n[t]\nx = 1\ny = 2\n", "[t]\ny = 3\n", "a = [4]\n[t.u]\nz = 5\n"});
  EXPECT_EQ(merge_toml({merged}), merge_toml({"a = [4]\n[t]\nx = 1\ny = 3\n[t.u]\nz = 5\n"}));
}

// Every manifest that is shipped must plan; none of them has its data here.
class Shipped : public testing::TestWithParam<const char*> {};

TEST_P(Shipped, PlansAndIsMatched) {
  const auto path = std::filesystem::path(CONVOY_SOURCE) / "experiments/manifests" / GetParam();
  const SweepPlan plan = expand(read_sweep_manifest(path));
  EXPECT_FALSE(plan.runs.empty());
  EXPECT_FALSE(to_table(plan).empty());
  for (const auto& run : plan.runs) {
    EXPECT_GT(run.hours, 0) << run.name;
    if (run.target_flops == 0) continue;
    const double step = run.flops / static_cast<double>(run.steps);
    EXPECT_LE(std::abs(run.flops - run.target_flops), std::max(0.01 * run.target_flops, step))
        << run.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Manifests, Shipped,
                         testing::Values("quickstart.toml", "ladder_hopper.toml",
                                         "ladder_hopper_lr.toml", "placement.toml",
                                         "width_rank.toml", "paper_150m_2b.toml", "mqar.toml",
                                         "trained.toml"));

TEST(Manifest, AMixtureOfExpertsIsPlannedOrSaysWhatIsMissing) {
  const auto path = std::filesystem::path(CONVOY_SOURCE) / "experiments/manifests/moe.toml";
  const SweepManifest manifest = read_sweep_manifest(path);
  try {
    EXPECT_EQ(expand(manifest).runs.size(), 12u);
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("model.moe is planned: this program has no mixture-of-experts model yet"),
              std::string::npos)
        << text;
    EXPECT_EQ(text.find("did you mean"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace convoy::test
