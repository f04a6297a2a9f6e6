// What one training step sends, counted on every rank, against what the blueprint's tables say:
// no operation is hidden, none is missing, none is too wide, whatever the layout.
#include "tests/launch/step_traffic.h"

#include "launch/gradient_step.h"
#include "parallel/instrumented_communicator.h"
#include "tests/launch/layout_lab.h"

namespace convoy::test {
namespace {

constexpr const char* kModel = R"(
[model]
d_model = 32
n_layers = 4
n_heads = 8
n_kv_heads = 4
d_ff = 24
vocab = 257
seq_len = 16
qk_norm = true
[train]
steps = 2
batch_tokens = 192
micro_batch = 1
)";

const std::string kAllSites = R"(model.conv.on=["q","k","v","o","gate","up","down"])";
// On all sites but the last, whose q and o are only two of them; a width of 8 reaches over whole
// segments under cp = 4.
const std::vector<std::vector<std::string>> kConvolutions = {
    {R"(model.conv.kind="none")"},
    {R"(model.conv.kind="static")", kAllSites},
    {R"(model.conv.kind="headwise")", kAllSites, "model.conv.head_size=2"},
    {R"(model.conv.kind="lowrank")", kAllSites, "model.conv.rank=5"},
    {R"(model.conv.kind="lowrank")", R"(model.conv.on=["q","o"])", "model.conv.width=8"}};

Traffic traffic_of(const CommunicationLog& log) {
  Traffic traffic;
  for (const auto& row : log.rows()) {
    traffic[{row.group, row.collective}] = {row.count.operations, row.count.bytes};
  }
  return traffic;
}

TrainingData data_of(const RunConfig& config) {
  TrainingDataOptions options;
  options.sources = {{config.data.train.front(), 1.0}};
  options.seq_len = config.model.seq_len;
  return TrainingData(options);
}

// The second step of a run, of which nothing is left to be made.
void expect_step_as_computed(const RunConfig& config, Communicator& world) {
  CommunicationLog log;
  const auto counted = instrument(world, "world", log);
  const auto backend = make_cpu_backend(config.numerics);
  const TrainingData data = data_of(config);
  const Layout layout(config, *counted);
  PipelineModel model(config, layout, *backend);
  const Communicator& sharers = layout.mesh().gradient();
  Optimizer optimizer(*backend, model.own_parts(),
                      {layout.world(), sharers.size(), sharers.rank(), config.numerics},
                      config.optimizer);
  GradientStep gradients(config, layout, model, data);
  for (const std::int64_t step : {1, 2}) {
    log.reset();
    optimizer.update(config.optimizer.lr, gradients.run(step, false).loss);
    model.publish();
  }
  const auto expected = expected_traffic(config, layout.mesh().shape(), layout.mesh().position());
  EXPECT_EQ(described(traffic_of(log)), described(expected)) << "on rank " << world.rank();
}

void expect_as_computed(const LayoutLab& lab, const LayoutCase& layout,
                        const std::vector<std::string>& more) {
  for (const auto& convolution : kConvolutions) {
    auto settings = convolution;
    settings.insert(settings.end(), more.begin(), more.end());
    const RunConfig config = lab.config(layout, settings);
    require_trainable(config, layout.ranks());
    std::string text = layout.describe();
    for (const auto& setting : settings) text += ", " + setting;
    run_on_threads(layout.ranks(), [&](Communicator& world) {
      SCOPED_TRACE(text);
      expect_step_as_computed(config, world);
    });
  }
}

// 12 micro-batches: 6 or 4 of a replica are no power of two, so that trees have loose ends.
class StepTraffic : public testing::Test {
 protected:
  void expect(const std::vector<LayoutCase>& layouts, const std::vector<std::string>& more = {}) {
    for (const auto& layout : layouts) expect_as_computed(lab_, layout, more);
  }
  LayoutLab lab_{kModel};
};

const std::string kUntied = "model.tie_embeddings=false";
const std::string kInvariant = "numerics.mode=invariant";

TEST_F(StepTraffic, OfDataParallelRanksIsAsComputed) {
  for (const int zero : {0, 1, 2, 3}) {
    for (const std::string& mode : {std::string("numerics.mode=fast"), kInvariant}) {
      expect({{.dp = 2, .zero = zero}}, {mode});
      expect({{.dp = 3, .zero = zero}}, {mode, kUntied});
    }
  }
}

TEST_F(StepTraffic, OfTensorParallelRanksIsAsComputed) {
  for (const bool sequence : {false, true}) {
    expect({{.tp = 2, .sequence_parallel = sequence}, {.tp = 4, .sequence_parallel = sequence}});
    expect({{.tp = 2, .sequence_parallel = sequence}},
           {kUntied, "model.qk_norm=false", "train.precision=f64"});
  }
}

TEST_F(StepTraffic, OfContextParallelRanksIsAsComputed) {
  expect({{.cp = 2}, {.cp = 4}});
  expect({{.tp = 2, .cp = 2, .sequence_parallel = true}}, {kUntied});
}

TEST_F(StepTraffic, OfPipelinesIsAsComputed) {
  for (const char* schedule : {"gpipe", "1f1b", "interleaved", "zb-h1", "zb-v"}) {
    expect({{.pp = 2, .schedule = schedule}});
    expect({{.pp = 2, .schedule = schedule, .recompute = "block"}}, {kUntied});
    expect({{.dp = 2, .zero = 3, .pp = 2, .schedule = schedule}});
  }
  expect({{.pp = 4}});
}

TEST_F(StepTraffic, OfMixturesIsAsComputed) {
  expect({{.dp = 2, .zero = 1, .tp = 2, .sequence_parallel = true},
          {.dp = 2, .zero = 2, .tp = 2, .cp = 2},
          {.dp = 2, .zero = 2, .pp = 2, .schedule = "zb-v", .tp = 2, .sequence_parallel = true},
          {.zero = 3, .pp = 2, .schedule = "interleaved", .tp = 2, .cp = 2}});
  expect({{.dp = 2, .zero = 2, .pp = 2, .recompute = "block", .cp = 2},
          {.zero = 1, .pp = 2, .schedule = "zb-h1", .tp = 2, .cp = 2, .sequence_parallel = true}},
         {kInvariant, kUntied});
}

// The loop of the trainer adds nothing of its own: a run of two steps differs from one of one by a
// step.
TEST_F(StepTraffic, OfTheTrainersLoopIsThatOfItsSteps) {
  const LayoutCase layout{.dp = 2, .zero = 1, .pp = 2, .tp = 2, .sequence_parallel = true};
  std::map<int, std::vector<Traffic>> of_steps;  // by rank
  RunConfig config;
  for (const int steps : {1, 2}) {
    const std::string name = concat("steps", steps);
    config = lab_.config(layout, {concat("train.steps=", steps), "eval.batches=1"});
    of_steps[steps].resize(static_cast<std::size_t>(layout.ranks()));
    run_on_threads(layout.ranks(), [&](Communicator& world) {
      CommunicationLog log;
      const auto counted = instrument(world, "world", log);
      const auto backend = make_cpu_backend(config.numerics);
      Trainer(config, {lab_.folder(name), {}, {}}, *backend, *counted).run();
      of_steps[steps][static_cast<std::size_t>(world.rank())] = traffic_of(log);
    });
  }
  const MeshShape mesh{.pp = layout.pp, .dp = layout.dp, .tp = layout.tp};
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    Traffic step;
    for (auto& [key, count] : of_steps[2][static_cast<std::size_t>(rank)]) {
      const Count& before = of_steps[1][static_cast<std::size_t>(rank)][key];
      const Count more{count.operations - before.operations, count.bytes - before.bytes};
      if (more.operations > 0) step[key] = more;
    }
    EXPECT_EQ(described(step), described(expected_traffic(config, mesh, position_of(mesh, rank))))
        << "on rank " << rank;
  }
}

}  // namespace
}  // namespace convoy::test
