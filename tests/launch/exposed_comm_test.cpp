// exposed_comm, the share of a step spent waiting inside communication: it counts every group, on a
// communicator whose operations take a set time.
#include <algorithm>

#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

constexpr const char* kModel = R"(
[model]
d_model = 16
n_layers = 2
n_heads = 2
n_kv_heads = 2
d_ff = 16
seq_len = 16
[model.conv]
kind = "none"
[train]
steps = 5
batch_tokens = 32
micro_batch = 1
[eval]
batches = 1
)";

constexpr double kLatency = 0.01;  // s

// Seconds that rank 0 has waited in each step.
std::vector<double> waited(const LayoutLab& lab, const LayoutCase& layout,
                           const std::string& name) {
  // One micro-batch a replica.
  const RunConfig run = lab.config(layout, {concat("train.micro_batch=", 2 / layout.dp)});
  require_trainable(run, layout.ranks());
  run_on_threads(layout.ranks(),
                 [&](Communicator& world) {
                   const auto backend = make_cpu_backend(run.numerics);
                   Trainer(run, {lab.folder(name), {}, {}}, *backend, world).run();
                 },
                 {.latency_s = kLatency});
  const auto shares = column(lab.folder(name), "train", "exposed_comm");
  const auto rates = column(lab.folder(name), "train", "tokens_per_s");
  std::vector<double> seconds;
  for (const auto& [step, share] : shares) {
    EXPECT_GE(share, 0);
    EXPECT_LE(share, 1);
    seconds.push_back(share * static_cast<double>(run.train.batch_tokens) / rates.at(step));
  }
  return seconds;
}

struct WaitCase {
  LayoutCase layout;
  int waits;  // operations of rank 0, one after the other, that no independent work hides
};

// Of all ranks: the decision to stop, the loss, the norm. Over dp and cp: the last gradients, and
// weights that were divided. Between stages: an activation and its gradient, of the one
// micro-batch. Over tp, a micro-batch: the look-up, the head's statistics and its gradient, and in
// each block the sums after o and down, and before gate, up and q, k, v on the way back. Over cp,
// in each block: keys and values, and back.
TEST(ExposedComm, CountsTheWaitsInEveryGroup) {
  const LayoutLab lab(kModel);
  for (const auto& [layout, waits] : std::vector<WaitCase>{{{.dp = 2}, 3 + 1},
                                                           {{.dp = 2, .zero = 1}, 3 + 1 + 1},
                                                           {{.pp = 2}, 3 + 2},
                                                           {{.tp = 2}, 3 + (3 + 2 * 4)},
                                                           {{.cp = 2}, 3 + 1 + 2 * 2}}) {
    SCOPED_TRACE(layout.describe());
    const auto seconds = waited(lab, layout, layout.describe());
    ASSERT_EQ(seconds.size(), 5u);
    // A rank that the machine puts off between an operation and its wait has waited less.
    EXPECT_GE(*std::max_element(seconds.begin(), seconds.end()), waits * kLatency);
  }
}

TEST(ExposedComm, IsZeroForALoneRank) {
  const LayoutLab lab(kModel);
  for (const double seconds : waited(lab, {}, "one")) EXPECT_EQ(seconds, 0);
}

}  // namespace
}  // namespace convoy::test
