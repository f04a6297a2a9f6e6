#include <array>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "core/recorded_region.h"
#include "launch/bench.h"
#include "launch/device_batch.h"
#include "launch/memory_planner.h"
#include "launch/model_instance.h"
#include "launch/optimizer.h"
#include "launch/pipeline_model.h"
#include "launch/run_device.h"
#include "launch/training_step.h"
#include "models/accounting.h"

namespace convoy {
namespace {

Batch random_batch(const RunConfig& config, std::uint64_t seed) {
  Batch batch(config.train.micro_batch, config.model.seq_len);
  const RandomStream random(seed, "bench tokens");
  const auto token = [&](std::size_t i) {
    return static_cast<std::int32_t>(random.bits(i)[0] %
                                     static_cast<std::uint32_t>(config.model.vocab));
  };
  for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
    batch.tokens[i] = token(i);
    batch.targets[i] = token(i + batch.tokens.size());
    batch.document_start[i] = 0;
  }
  return batch;
}

// The step of a run on one rank that accumulates nothing.
RunConfig of_lone_rank(RunConfig config) {
  ParallelConfig alone;
  alone.recompute = config.parallel.recompute;
  alone.recompute_blocks = config.parallel.recompute_blocks;
  config.parallel = alone;
  config.train.batch_tokens = config.train.micro_batch * config.model.seq_len;
  return config;
}

}  // namespace

StepMeasurement bench_step(const RunConfig& run, int steps) {
  require_sound_model(run);
  if (run.train.precision == "bf16" && device_of_run(run) == DeviceKind::cpu) {
    throw Error("train.precision = \"bf16\" needs a CUDA device; use \"f32\" on a CPU");
  }
  const RunConfig config = of_lone_rank(run);
  const auto backend = backend_of_run(config);
  const Layout layout(config, one_rank().tp);
  PipelineModel model(config, layout, *backend);
  Optimizer optimizer(*backend, model.own_parts(), {layout.world()}, config.optimizer);
  const auto rows = static_cast<double>(config.train.micro_batch * config.model.seq_len);
  const OwnedTensor nats(*backend, DType::f64, {1});
  RecordedRegion region(*backend, why_not_recorded(config, 1));
  const auto replay = [&] { run_loaded_step(region, *backend, model, optimizer, nats.view()); };
  std::uint64_t draw = 0;
  const auto load = [&] {
    const Batch batch = random_batch(config, draw++);
    model.load({{&batch, 1}, 1 / rows, {}});
  };
  std::array<StepFindings, 2> found;  // of a step and of the one before it
  const auto step = [&] {
    optimizer.set_rate(config.optimizer.lr);
    replay();
    StepFindings& now = found[draw % 2];
    now.fetch(*backend, model.nats(), optimizer);
    model.publish();
    load();  // of the next step, while a GPU is busy with this
    if (!region.replayed()) return now.wait();
    found[draw % 2].wait();  // as in training, the host asks for a step before it hears of the last
  };
  load();
  for (int i = 0; i < RecordedRegion::kPlainRuns; ++i) step();
  const double seconds = backend->seconds_of(steps, step);
  for (StepFindings& last : found) last.wait();
  const double loss = found[(draw - 1) % 2].nats() / rows;
  const double replay_seconds = region.replayed() ? backend->seconds_of(steps, replay) : 0;
  const double flops = training_flops_per_token(config.model).total() * rows;
  const bool on_gpu = backend->device() == DeviceKind::cuda;
  const RankBytes planned = plan_rank_memory(config, MeshShape{}, 0, on_gpu);
  const double measured = on_gpu ? cuda_memory_taken(0) : std::nan("");
  return {seconds,       rows / seconds,      flops / seconds,
          loss,          planned.activations, planned.total(),
          measured,      region.replayed(),   region.status(),
          replay_seconds};
}

// The step's results are of no use: what is measured is run many times.
MatmulChoices bench_matmuls(const RunConfig& config) {
  require_sound_model(config);
  if (device_of_run(config) == DeviceKind::cpu || config.numerics == NumericsMode::invariant) {
    throw Error("there is a choice of matmuls on a GPU in fast mode alone; use --device cuda");
  }
  RunConfig unasked = config;
  unasked.matmul_table.clear();
  const auto choices = std::make_shared<MatmulChoices>();
  const auto backend = backend_of_run(unasked);
  backend->use_matmul_choices(choices, MeasureMatmuls::yes);
  ModelInstance instance(*backend, config.model, dtype_of_run(config), config.train.micro_batch,
                         recompute_blocks_of(config), 0, MasterWeights::yes);
  DeviceBatch batch(*backend, config.train.micro_batch, config.model.seq_len);
  const OwnedTensor losses(*backend, DType::f64, {batch.view().rows()});
  batch.load(random_batch(config, 0));
  instance.model().train(instance.context(), batch.view(), losses.view(),
                         1 / static_cast<double>(batch.view().rows()));
  backend->synchronize();
  return *choices;
}

}  // namespace convoy
