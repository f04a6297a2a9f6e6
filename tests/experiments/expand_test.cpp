// From manifest to runs: matching, identities, branches, rules, refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "experiments/manifest/matching.h"
#include "experiments/manifest/run_identity.h"
#include "launch/lr_schedule.h"
#include "models/accounting.h"
#include "tests/experiments/manifest_fixture.h"

namespace convoy::test {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const PlannedRun& the_run(const SweepPlan& plan, const std::string& name) {
  const PlannedRun* run = plan.find(name);
  CHECK(run != nullptr, "no run ", name, " in\n", to_table(plan));
  return *run;
}

std::set<std::string> ids(const SweepPlan& plan) {
  std::set<std::string> result;
  for (const auto& run : plan.runs) result.insert(run.id);
  return result;
}

double step_flops(const PlannedRun& run) { return run.flops / static_cast<double>(run.steps); }

TEST(Expand, ALadderGivesTheReferenceItsTokensPerParameter) {
  const SweepPlan plan = ManifestText().expanded();
  ASSERT_EQ(plan.runs.size(), 4u);
  for (const char* size : {"S", "M"}) {
    const PlannedRun& run = the_run(plan, concat("transformer-", size, "-5tpp-seed0"));
    const auto n = count_parameters(run.config.model).non_embedding;
    EXPECT_EQ(run.n, static_cast<double>(n));
    EXPECT_NEAR(run.tokens, 5 * run.n, 128);  // half a batch of 256
    EXPECT_EQ(run.config.train.steps * 256, run.tokens);
  }
}

TEST(Expand, EveryPairOfArmsHasEqualFlopsByEveryConvention) {
  for (const char* convention : {"parts", "6n", "causal", "full"}) {
    ManifestText text;
    text.plan += concat("flop_convention = \"", convention, "\"\nseeds = [0, 3]\n");
    for (const auto& run : text.expanded().runs) {
      EXPECT_LE(std::abs(run.flops - run.target_flops),
                std::max(0.01 * run.target_flops, step_flops(run)))
          << convention << ' ' << run.name;
      EXPECT_NEAR(run.flops / (run.tokens * training_flops_per_token(run.config.model, convention)),
                  1, 1e-12);
    }
  }
}

// The convolution costs FLOPs, so at equal C its arm sees fewer tokens; were its own FLOPs left
// out, it would see as many.
TEST(Expand, TheConvolutionsOwnFlopsAreCounted) {
  const SweepPlan plan = ManifestText().expanded();
  const auto& plain = the_run(plan, "transformer-M-5tpp-seed0");
  const auto& conv = the_run(plan, "conv-M-5tpp-seed0");
  const FlopParts parts = training_flops_per_token(conv.config.model);
  EXPECT_NEAR(conv.tokens / plain.tokens, 1 - parts.conv / parts.total(),
              1.0 / static_cast<double>(plain.steps));
}

TEST(Expand, StepsAreOfEachSizesOwnBatch) {
  ManifestText text;
  text.sizes += "train = { batch_tokens = 512 }\n";  // of the last size, M
  text.plan =
      "[plan]\nmode = \"steps\"\nsteps = [30]\nmatch = \"tokens\"\n"
      "exclude = [\"steps=30,size=S,arch=conv\"]\n";
  const SweepPlan plan = text.expanded();
  EXPECT_EQ(plan.runs.size(), 3u);
  EXPECT_EQ(the_run(plan, "transformer-S-30steps-seed0").tokens, 30 * 256);
  EXPECT_EQ(the_run(plan, "conv-M-30steps-seed0").tokens, 30 * 512);
}

TEST(Expand, ASyntheticTaskKnowsHowManySamplesItHas) {
  ManifestText text;
  text.base =
      "[base.model]\nvocab = 64\nseq_len = 64\n"
      "[base.train]\nbatch_tokens = 256\nmicro_batch = 2\n"
      "[base.data]\ntrain = \"mqar:pairs=4,vocab=64,samples=100\"\n";
  text.plan = "[plan]\nmode = \"steps\"\nsteps = [50]\nmatch = \"tokens\"\nepochs = 2\n";
  for (const auto& run : text.expanded().runs) EXPECT_EQ(run.epochs, 2);
  text.plan = "[plan]\nmode = \"steps\"\nsteps = [51]\nmatch = \"tokens\"\nepochs = 2\n";
  EXPECT_TRUE(has(text.complaint(), "2.04 epochs")) << text.complaint();
}

TEST(Expand, IsoflopSolvesTheTokensOfEverySizeAndArm) {
  ManifestText text;
  text.plan = "[plan]\nmode = \"isoflop\"\nflops = [1e11, 3e11]\n";
  const SweepPlan plan = text.expanded();
  EXPECT_EQ(plan.runs.size(), 8u);
  for (const auto& run : plan.runs) {
    EXPECT_EQ(run.target_flops, run.budget);
    EXPECT_LE(std::abs(run.flops - run.budget), 0.5 * step_flops(run) * (1 + 1e-9)) << run.name;
  }
}

TEST(Expand, AGridGivesEveryArmTheSameTokens) {
  ManifestText text;
  text.plan = "[plan]\nmode = \"grid\"\ntokens = [25600, 51200]\nmatch = \"tokens\"\n";
  const SweepPlan plan = text.expanded();
  EXPECT_EQ(plan.runs.size(), 8u);
  for (const auto& run : plan.runs) EXPECT_EQ(run.tokens, run.budget);
}

TEST(Expand, AShapeCanBeMatchedInPlaceOfTokens) {
  for (const char* by : {"ffn", "width"}) {
    ManifestText text;
    text.sizes =
        "[[size]]\nid = \"M\"\nmodel = { d_model = 128, n_layers = 4, n_heads = 2, d_ff = 344 }\n";
    text.plan += concat("match_by = \"", by, "\"\nflops_tolerance = 0.05\n");
    const SweepPlan plan = text.expanded();
    const auto& plain = the_run(plan, "transformer-M-5tpp-seed0");
    const auto& conv = the_run(plan, "conv-M-5tpp-seed0");
    EXPECT_EQ(conv.tokens, plain.tokens);
    EXPECT_NEAR(conv.flops / plain.flops, 1, 0.05) << by;
    EXPECT_LT(conv.config.model.d_ff, plain.config.model.d_ff) << by;
  }
}

TEST(Expand, ParametersCanBeMatched) {
  ManifestText text;
  text.plan += "match = \"params\"\nmatch_by = \"ffn\"\nflops_tolerance = 0.03\n";
  const SweepPlan plan = text.expanded();
  const auto& plain = the_run(plan, "transformer-M-5tpp-seed0");
  const auto& conv = the_run(plan, "conv-M-5tpp-seed0");
  EXPECT_NEAR(conv.n / plain.n, 1, 0.03);
  EXPECT_EQ(conv.target_flops, 0);
}

TEST(Expand, AShapeThatCannotComeCloseIsRefusedWithTheNumbers) {
  ManifestText text;
  text.plan += "match_by = \"depth\"\n";  // two or three layers: steps of a third at best
  const std::string complaint = text.complaint();
  EXPECT_TRUE(has(complaint, "off the target")) << complaint;
  EXPECT_TRUE(has(complaint, "more than 1 %")) << complaint;
}

TEST(Expand, WallClockMatchesByMeasuredSpeed) {
  ManifestText text;
  text.plan += "match = \"wallclock\"\ntokens_per_s = { transformer = 1000, conv = 800 }\n";
  const SweepPlan plan = text.expanded();
  EXPECT_NEAR(
      the_run(plan, "conv-M-5tpp-seed0").tokens / the_run(plan, "transformer-M-5tpp-seed0").tokens,
      0.8, 1.0 / static_cast<double>(the_run(plan, "conv-M-5tpp-seed0").steps));
  text.plan = "[plan]\ntokens_per_param = [5]\nmatch = \"wallclock\"\n";
  EXPECT_TRUE(has(text.complaint(), "plan.tokens_per_s lacks conv")) << text.complaint();
}

TEST(Expand, AddingASizeRenumbersNothing) {
  ManifestText text;
  const auto before = ids(text.expanded());
  text.sizes +=
      "[[size]]\nid = \"L\"\nmodel = { d_model = 64, n_layers = 3, n_heads = 2, "
      "d_ff = 128 }\n";
  const auto after = ids(text.expanded());
  EXPECT_EQ(after.size(), before.size() + 2);
  EXPECT_TRUE(std::includes(after.begin(), after.end(), before.begin(), before.end()));
}

TEST(Expand, NamesOfArmsAndSizesAreNotPartOfTheIdentity) {
  ManifestText text, other;
  other.archs = "[arch.baseline]\n[arch.dynamic]\nmodel.conv = { kind = \"lowrank\", rank = 4 }\n";
  other.rest = "[launch]\nlauncher = \"mpirun\"\nretries = 5\n";
  other.base += "[base.log]\nevery = 3\n[base.checkpoint]\nevery = 7\n";
  EXPECT_EQ(ids(text.expanded()), ids(other.expanded()));
}

TEST(Expand, WhatChangesTheNumbersChangesTheIdentity) {
  const auto before = ids(ManifestText().expanded());
  for (const char* change :
       {"[base.optimizer]\nlr = 2e-3\n", "[base.numerics]\nmode = \"invariant\"\n",
        "[base.lr_schedule]\nmin_lr = 1e-5\n"}) {
    ManifestText text;
    text.base += change;
    for (const auto& id : ids(text.expanded())) EXPECT_FALSE(before.contains(id)) << change;
  }
}

TEST(Expand, TheIdentityDoesNotDependOnHowTheLengthIsSaid) {
  const RunConfig steps = parse_config("[train]\nsteps = 10\nbatch_tokens = 2048\n", "a", {});
  const RunConfig tokens = parse_config("[train]\ntokens = 20480\nbatch_tokens = 2048\n", "b", {});
  EXPECT_EQ(run_id(steps), run_id(tokens));
  EXPECT_NE(run_id(steps),
            run_id(parse_config("[train]\nsteps = 11\nbatch_tokens = 2048\n", "c", {})));
}

ManifestText branched() {
  ManifestText text;
  text.rest =
      "[rules]\nlr = \"1e-3\"\nwarmup_tokens = \"N/4\"\nschedule = \"wsd\"\n"
      "cooldown = 0.2\nbranch_at = [\"0.5x\", \"0.75x\", \"1x\"]\n";
  return text;
}

TEST(Expand, ABranchIsARunOfItsOwnThatSharesThePastOfTheLongRun) {
  const SweepPlan plan = branched().expanded();
  EXPECT_EQ(plan.chains(), 4u);
  const auto& trunk = the_run(plan, "conv-M-5tpp-seed0-1x");
  EXPECT_TRUE(trunk.parent.empty());
  for (const char* share : {"0.5", "0.75"}) {
    const auto& branch = the_run(plan, concat("conv-M-5tpp-seed0-", share, "x"));
    EXPECT_EQ(branch.parent, trunk.id);
    EXPECT_EQ(branch.chain, trunk.chain);
    EXPECT_NEAR(branch.tokens / trunk.tokens, std::stod(share), 1.0 / 100);
    const auto& at = trunk.config.checkpoint.at;
    EXPECT_NE(std::find(at.begin(), at.end(), branch.branch_step), at.end());
    for (std::int64_t step = 1; step <= branch.branch_step; ++step) {
      ASSERT_EQ(learning_rate(branch.config, step), learning_rate(trunk.config, step)) << step;
    }
    EXPECT_LT(learning_rate(branch.config, branch.branch_step + 2),
              learning_rate(trunk.config, branch.branch_step + 2))
        << "the branch point should be the last possible one";
  }
}

TEST(Expand, AWarmUpThatReachesIntoTheCooldownIsRefused) {
  ManifestText text = branched();
  text.rest =
      "[rules]\nwarmup_tokens = \"D/2\"\nschedule = \"wsd\"\ncooldown = 0.2\n"
      "branch_at = [\"0.5x\", \"1x\"]\n";
  EXPECT_TRUE(has(text.complaint(), "reaches into the cooldown")) << text.complaint();
}

TEST(Expand, RulesSeeTheArmsOwnNumbers) {
  ManifestText text;
  text.rest =
      "[rules]\nlr = { transformer = \"1e-3*(N/1e4)^(-1/3)\", conv = \"d_model*1e-5\" }\n"
      "lr_multipliers = [0.5, 1]\n";
  const SweepPlan plan = text.expanded();
  EXPECT_EQ(plan.runs.size(), 8u);
  const auto& run = the_run(plan, "transformer-S-5tpp-seed0-lr0.5");
  EXPECT_DOUBLE_EQ(run.config.optimizer.lr, 0.5 * 1e-3 * std::pow(run.n / 1e4, -1.0 / 3));
  EXPECT_DOUBLE_EQ(the_run(plan, "conv-M-5tpp-seed0").config.optimizer.lr, 48e-5);
}

TEST(Expand, ExclusionsLeaveOutWhatMeetsEveryCondition) {
  ManifestText text;
  text.plan += "seeds = [0, 1, 2]\nexclude = [\"size=M,seed!=0\"]\n";
  const SweepPlan plan = text.expanded();
  EXPECT_EQ(plan.runs.size(), 2u * 3 + 2);
  for (const auto& run : plan.runs) EXPECT_TRUE(run.size == "S" || run.seed == 0) << run.name;
}

TEST(Expand, MoreTokensThanTheDataHasNeedEpochsAllowed) {
  ManifestText text;
  text.plan += "unique_tokens = 1e5\n";
  EXPECT_TRUE(has(text.complaint(), "epochs of the 100000 there are")) << text.complaint();
  text.plan += "epochs = 5\n";
  const SweepPlan plan = text.expanded();
  const auto& run = the_run(plan, "transformer-M-5tpp-seed0");
  EXPECT_EQ(run.unique_tokens, 1e5);
  EXPECT_DOUBLE_EQ(run.epochs, run.tokens / 1e5);
  ASSERT_FALSE(run.warnings.empty());
  EXPECT_TRUE(has(run.warnings[0], "more than one epoch")) << run.warnings[0];
}

TEST(Expand, TwoNamesForOneRunAreRefused) {
  ManifestText text;
  text.archs += "[arch.copy]\nmodel.conv = { kind = \"lowrank\", rank = 4 }\n";
  EXPECT_TRUE(has(text.complaint(), "is the same run as conv-S-5tpp-seed0")) << text.complaint();
}

TEST(Expand, AHighLearningRateAndANarrowLadderAreWarnedOf) {
  ManifestText text;
  text.rest = "[rules]\nlr = \"0.0047*(N/108e6)^(-1/3)/2\"\n";
  const std::string table = to_table(text.expanded());
  EXPECT_TRUE(has(table, "is high")) << table;
  EXPECT_TRUE(has(table, "a law needs 1.5 or more")) << table;
  EXPECT_TRUE(has(table, "D/N takes one value only")) << table;
}

}  // namespace
}  // namespace convoy::test
