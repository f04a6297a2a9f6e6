// Layouts that change the order of sums (tp, cp, and mixtures with everything else): gradients of
// the first step within a bound from dtype and reduction length, and curves no further from one
// rank's than rounding explains.
#include <algorithm>
#include <cmath>

#include "tests/launch/layout_lab.h"
#include "tests/launch/training_trace.h"

namespace convoy::test {
namespace {

constexpr std::int64_t kSteps = 50;

constexpr const char* kModel = R"(
[model]
d_model = 16
n_layers = 8
n_heads = 8
n_kv_heads = 4
d_ff = 24
seq_len = 32
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
[checkpoint]
async = false
)";

LayoutCase sharded(int tp, int cp, bool sequence_parallel = false, const LayoutCase& rest = {}) {
  LayoutCase layout = rest;
  layout.tp = tp;
  layout.cp = cp;
  layout.sequence_parallel = sequence_parallel;
  return layout;
}

std::vector<LayoutCase> layouts() {
  return {sharded(2, 1),
          sharded(4, 1),
          sharded(2, 1, true),
          sharded(4, 1, true),
          sharded(1, 2),
          sharded(1, 4),
          sharded(2, 2),
          sharded(2, 2, true, {1, 0, 2, "zb-v", "block"}),
          sharded(2, 2, false, {2, 3, 1, "1f1b", "none"}),
          sharded(4, 4, true),
          sharded(1, 2, false, {2, 2, 2, "zb-h1", "none"}),
          sharded(2, 1, true, {2, 1, 4, "interleaved", "block"})};
}

// Additions on the longest way from a weight through the losses back to its gradient: the inputs
// of each matmul, the positions of attention, the products of a filter and its taps, the classes,
// all of them forward and backward, and the tokens over which a gradient is summed.
double longest_chain(const RunConfig& config) {
  const ModelConfig& m = config.model;
  const auto conv = static_cast<double>(m.conv.width * (m.conv.rank + 1));
  const auto block =
      static_cast<double>(4 * m.d_model + m.d_ff + m.head_width() + m.seq_len) + 4 * conv;
  const double forward =
      static_cast<double>(m.n_layers) * block + static_cast<double>(2 * m.d_model + m.vocab);
  return 2 * forward + static_cast<double>(config.train.batch_tokens);
}

// The widest gap between two of the curves at any step.
double spread_of(const std::vector<std::vector<double>>& curves) {
  double widest = 0;
  for (std::size_t i = 0; i < curves.front().size(); ++i) {
    const auto [low, high] = std::minmax_element(
        curves.begin(), curves.end(), [i](const auto& a, const auto& b) { return a[i] < b[i]; });
    widest = std::max(widest, (*high)[i] - (*low)[i]);
  }
  return widest;
}

class ShardedCurve : public testing::Test {
 protected:
  RunConfig config(const LayoutCase& layout, const char* precision) const {
    return lab_.config(layout, {concat("train.precision=", precision)});
  }
  TrainingTrace trace(const LayoutCase& layout, const char* precision,
                      std::optional<std::uint64_t> moved = {}) const {
    return trace_on_threads(config(layout, precision), layout.ranks(), {1, moved});
  }

  LayoutLab lab_{kModel};
};

TEST_F(ShardedCurve, InF64KeepsTwelveDigitsOfGradientsAndNineOfLosses) {
  const TrainingTrace one = trace({}, "f64");
  ASSERT_EQ(std::ssize(one.losses), kSteps);
  EXPECT_LT(one.losses.back(), one.losses.front()) << "it learns nothing";
  const double bound = unit_roundoff(DType::f64) * longest_chain(config({}, "f64"));
  EXPECT_LE(bound, 1e-12);
  for (const auto& layout : layouts()) {
    SCOPED_TRACE(layout.describe());
    const TrainingTrace many = trace(layout, "f64");
    EXPECT_EQ(difference(many.gradients[0], one.gradients[0], bound), std::nullopt);
    EXPECT_EQ(difference(many.losses, one.losses, 1e-9), std::nullopt);
  }
}

// How far a curve may stray in f32 is measured: as far as curves lie apart when their initial
// weights differ by a move to neighbouring numbers, a change below what f32 can tell.
TEST_F(ShardedCurve, InF32StraysNoFurtherThanAfterAMoveOfTheWeightsByAnUlp) {
  constexpr std::uint64_t kMoves = 32;
  const TrainingTrace one = trace({}, "f32");
  std::vector<std::vector<double>> curves = {one.losses};
  for (std::uint64_t seed = 0; seed < kMoves; ++seed) {
    curves.push_back(trace({}, "f32", seed).losses);
  }
  const double spread = spread_of(curves);
  const double bound = unit_roundoff(DType::f32) * longest_chain(config({}, "f32"));
  for (const auto& layout : layouts()) {
    SCOPED_TRACE(layout.describe());
    const TrainingTrace many = trace(layout, "f32");
    EXPECT_EQ(difference(many.gradients[0], one.gradients[0], bound, DType::f32), std::nullopt);
    EXPECT_LE(spread_of({one.losses, many.losses}), spread);
  }
}

TEST_F(ShardedCurve, ARunResumedOnAnotherShardingGoesOnAsIfItHadBeenOneRun) {
  const std::vector<std::string> short_run = {"train.precision=f64", "train.steps=8",
                                              "checkpoint.every=4", "checkpoint.keep=9"};
  const RunOutcome one = lab_.run({}, "one", short_run);
  const std::vector<LayoutCase> chain = {{},
                                         sharded(2, 1, false, {2, 2, 1, "1f1b"}),
                                         sharded(1, 2, false, {2, 1, 1, "1f1b"}),
                                         sharded(4, 1, true, {1, 0, 2, "zb-h1"})};
  for (std::size_t i = 0; i < chain.size(); ++i) {
    const LayoutCase& other = chain[(i + 1) % chain.size()];
    SCOPED_TRACE(chain[i].describe() + ", then " + other.describe());
    const std::string name = concat("resumed", i);
    lab_.train(chain[i], name, short_run);
    lab_.forget_after(name, 4);
    lab_.train(other, name, short_run, true);
    const RunOutcome resumed = lab_.outcome(name);
    ASSERT_EQ(resumed.losses.size(), one.losses.size());
    for (const auto& [step, loss] : one.losses) {
      EXPECT_NEAR(resumed.losses.at(step), loss, 1e-9 * loss) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace convoy::test
