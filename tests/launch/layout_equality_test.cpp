// The equality contract: in invariant mode a run has the same bits on every layout.
#include <cstdio>
#include <cstdlib>
#include <set>

#include "launch/stopwatch.h"
#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

constexpr const char* kModel = R"(
[model]
d_model = 16
n_layers = 8
n_heads = 4
n_kv_heads = 2
d_ff = 24
seq_len = 16
qk_norm = true
[model.conv]
kind = "lowrank"
on = ["q", "k", "v", "o", "gate", "up", "down"]
rank = 3
init = "normal"
[train]
steps = 50
batch_tokens = 128
micro_batch = 1
[numerics]
mode = "invariant"
[eval]
batches = 5
[checkpoint]
async = false
)";

std::vector<LayoutCase> all_layouts() {
  std::vector<LayoutCase> all;
  for (const int dp : {1, 2, 4, 8}) {
    for (const int zero : {0, 1, 2, 3}) {
      for (const int pp : {1, 2, 4}) {
        for (const char* schedule : {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v"}) {
          for (const char* recompute : {"none", "block"}) {
            if (dp * pp <= 16) all.push_back({dp, zero, pp, schedule, recompute});
          }
        }
      }
    }
  }
  return all;
}

// Every two settings of two different keys that a layout has.
std::set<std::string> pairs_of(const LayoutCase& c) {
  const std::vector<std::string> settings = {concat("dp", c.dp), concat("zero", c.zero),
                                             concat("pp", c.pp), c.schedule, c.recompute};
  std::set<std::string> pairs;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) pairs.insert(settings[j] + " " + settings[i]);
  }
  return pairs;
}

// Layouts in which every such pair occurs, few ranks first: chosen greedily.
std::vector<LayoutCase> pairwise_cover(const std::vector<LayoutCase>& all) {
  std::set<std::string> missing;
  for (const auto& layout : all) missing.merge(pairs_of(layout));
  std::vector<LayoutCase> cover;
  while (!missing.empty()) {
    const auto news = [&](const LayoutCase& layout) {
      const auto pairs = pairs_of(layout);
      return std::count_if(pairs.begin(), pairs.end(),
                           [&](const auto& pair) { return missing.contains(pair); });
    };
    const auto best = std::max_element(all.begin(), all.end(), [&](const auto& a, const auto& b) {
      return std::pair(news(a), -a.ranks()) < std::pair(news(b), -b.ranks());
    });
    for (const auto& pair : pairs_of(*best)) missing.erase(pair);
    cover.push_back(*best);
  }
  return cover;
}

// CONVOY_LAYOUTS=all runs the full product instead of a cover, for minutes, and prints a line for
// each layout.
bool runs_the_full_product() {
  const char* wanted = std::getenv("CONVOY_LAYOUTS");
  return wanted != nullptr && std::string(wanted) == "all";
}

void report(const std::string& layout, double seconds) {
  if (!runs_the_full_product()) return;
  const char* verdict = testing::Test::HasFailure() ? "DIFFERS" : "equal";
  std::printf("%s: %s, %.1f s\n", layout.c_str(), verdict, seconds);
  std::fflush(stdout);
}

TEST(LayoutEquality, EveryLayoutTrainsTheSameBits) {
  const LayoutLab lab(kModel);
  const RunOutcome one = lab.run({}, "one");
  ASSERT_EQ(one.losses.size(), 50u);
  EXPECT_LT(one.losses.at(50), one.losses.at(1)) << "it learns nothing";
  const auto cover = pairwise_cover(all_layouts());
  EXPECT_LE(cover.size(), 60u);
  const auto layouts = runs_the_full_product() ? all_layouts() : cover;
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    SCOPED_TRACE(layouts[i].describe());
    const std::string name = concat("layout", i);
    const Stopwatch watch;
    expect_same_bits(lab.run(layouts[i], name), one);
    report(layouts[i].describe(), watch.seconds());
    std::filesystem::remove_all(lab.folder(name));
    if (testing::Test::HasFailure()) break;
  }
}

// Where few positions have a label the head sees these rows alone, wherever it stands.
TEST(LayoutEquality, AssociativeRecallHasTheSameBitsOnEveryLayout) {
  const LayoutLab lab(kModel);
  const std::vector<std::string> recall = {"train.steps=12", "data.train=mqar:pairs=3,vocab=64",
                                           "data.val=mqar:pairs=3,vocab=64,samples=21"};
  const RunOutcome one = lab.run({}, "one", recall);
  ASSERT_EQ(one.losses.size(), 12u);
  for (const LayoutCase& layout : std::vector<LayoutCase>{
           {2, 3, 2, "1f1b"}, {1, 0, 4, "zb-h1"}, {4, 1, 1, "gpipe"}, {2, 2, 2, "zb-v", "block"}}) {
    SCOPED_TRACE(layout.describe());
    expect_same_bits(lab.run(layout, layout.describe(), recall), one);
  }
}

TEST(LayoutEquality, ARunResumedOnAnotherLayoutHasTheSameBits) {
  const LayoutLab lab(kModel);
  const std::vector<std::string> short_run = {"train.steps=12", "checkpoint.every=4",
                                              "checkpoint.keep=9"};
  const RunOutcome one = lab.run({}, "one", short_run);
  const std::vector<LayoutCase> few = {
      {2, 3, 2, "1f1b"}, {1, 0, 4, "zb-h1"}, {4, 1, 1, "gpipe"}, {2, 2, 2, "zb-v"}, {}};
  const auto layouts = runs_the_full_product() ? all_layouts() : few;
  for (std::size_t i = 0; i < layouts.size(); ++i) {
    const LayoutCase& other = layouts[(i + layouts.size() / 2 + 1) % layouts.size()];
    SCOPED_TRACE(layouts[i].describe() + ", then " + other.describe());
    const std::string name = concat("resumed", i);
    const Stopwatch watch;
    lab.train(layouts[i], name, short_run);
    lab.forget_after(name, 4);
    lab.train(other, name, short_run, true);
    expect_same_bits(lab.outcome(name), one);
    report(layouts[i].describe() + ", then " + other.describe(), watch.seconds());
    std::filesystem::remove_all(lab.folder(name));
    if (testing::Test::HasFailure()) break;
  }
}

}  // namespace
}  // namespace convoy::test
