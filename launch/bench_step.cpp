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

}  // namespace

StepMeasurement bench_step(const RunConfig& config, int steps) {
  require_sound_model(config);
  if (config.train.precision == "bf16" && device_of_run(config) == DeviceKind::cpu) {
    throw Error("train.precision = \"bf16\" needs a CUDA device; use \"f32\" on a CPU");
  }
  const auto backend = backend_of_run(config);
  ModelInstance instance(*backend, config.model, dtype_of_run(config), config.train.micro_batch,
                         recompute_blocks_of(config), 0, MasterWeights::yes);
  Optimizer optimizer(*backend, instance.store(), config.optimizer);
  DeviceBatch batch(*backend, config.train.micro_batch, config.model.seq_len);
  const OwnedTensor losses(*backend, DType::f64, {batch.view().rows()});
  const auto rows = static_cast<double>(batch.view().rows());
  std::uint64_t draw = 0;
  const OwnedTensor nats(*backend, DType::f64, {1});
  RecordedRegion region(*backend, why_not_recorded(config, 1));
  const auto operations = [&] {
    instance.store().zero_gradients();
    instance.model().train(instance.context(), batch.view(), losses.view(), 1 / rows);
    instance.store().add_second_gradients();
    backend->sum(nats.view(), losses.view());
    optimizer.apply(nats.view());
  };
  std::array<StepFindings, 2> found;  // of a step and of the one before it
  const auto step = [&] {
    optimizer.set_rate(config.optimizer.lr);
    region.run({}, operations);
    StepFindings& now = found[draw % 2];
    now.fetch(*backend, nats.view(), optimizer);
    batch.load(random_batch(config, draw++));  // of the next step, while a GPU is busy with this
    if (!region.replayed()) return now.wait();
    found[draw % 2].wait();  // as in training, the host asks for a step before it hears of the last
  };
  batch.load(random_batch(config, draw++));
  for (int i = 0; i < RecordedRegion::kPlainRuns; ++i) step();
  const double seconds = backend->seconds_of(steps, step);
  for (StepFindings& last : found) last.wait();
  const double loss = found[(draw - 1) % 2].nats() / rows;
  const double replay =
      region.replayed() ? backend->seconds_of(steps, [&] { region.run({}, operations); }) : 0;
  const double flops = training_flops_per_token(config.model).total() * rows;
  const auto arena = static_cast<double>(
      measure_arena(config.model, dtype_of_run(config), config.train.micro_batch,
                    recompute_blocks_of(config), backend->device()));
  const bool on_gpu = backend->device() == DeviceKind::cuda;
  const double predicted = plan_rank_memory(config, MeshShape{}, 0, on_gpu).total();
  const double measured = on_gpu ? cuda_memory_taken(0) : std::nan("");
  return {seconds,  rows / seconds,    flops / seconds, loss,  arena, predicted,
          measured, region.replayed(), region.status(), replay};
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
