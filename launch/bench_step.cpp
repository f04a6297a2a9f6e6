#include <numeric>

#include "core/random.h"
#include "launch/bench.h"
#include "launch/device_batch.h"
#include "launch/model_instance.h"
#include "launch/optimizer.h"
#include "launch/run_device.h"
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
  const auto backend = backend_of_run(config);
  ModelInstance instance(*backend, config.model, dtype_of_run(config), config.train.micro_batch,
                         recompute_blocks_of(config), 0, MasterWeights::yes);
  Optimizer optimizer(*backend, instance.store(), config.optimizer);
  DeviceBatch batch(*backend, config.train.micro_batch, config.model.seq_len);
  const OwnedTensor losses(*backend, DType::f64, {batch.view().rows()});
  const auto rows = static_cast<double>(batch.view().rows());
  double loss = 0;
  std::uint64_t draw = 0;
  std::vector<double> nats(static_cast<std::size_t>(batch.view().rows()));
  const Tensor host(nats.data(), DType::f64, DeviceKind::cpu, {batch.view().rows()});
  const double seconds = backend->seconds_of(steps, [&] {
    batch.load(random_batch(config, draw++));
    instance.store().zero_gradients();
    instance.model().train(instance.context(), batch.view(), losses.view(), 1 / rows);
    instance.store().add_second_gradients();
    backend->copy(host, losses.view());
    loss = std::accumulate(nats.begin(), nats.end(), 0.0) / rows;
    optimizer.update(config.optimizer.lr, loss);
  });
  const double flops = training_flops_per_token(config.model).total() * rows;
  const auto arena = static_cast<double>(
      measure_arena(config.model, dtype_of_run(config), config.train.micro_batch,
                    recompute_blocks_of(config), backend->device()));
  return {seconds, rows / seconds, flops / seconds, loss, arena};
}

}  // namespace convoy
