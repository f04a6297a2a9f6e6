#include "launch/model_instance.h"

#include <algorithm>
#include <numeric>

#include "core/null_backend.h"

namespace convoy {

BatchView batch_without_memory(std::int64_t sequences, std::int64_t length,
                               const Sharding& sharding, DeviceKind device,
                               std::int64_t labels_of_window) {
  static std::int32_t nothing = 0;
  const std::int64_t all = sharding.all_rows(length).rows(), own = sharding.own_rows(length).rows();
  const Tensor rows(&nothing, DType::i32, device, {sequences * all});
  const Tensor own_rows(&nothing, DType::i32, device, {sequences * own});
  BatchView batch{sequences, all, rows, rows, rows, rows, rows, own_rows};
  if (labels_of_window < length) {
    const std::int64_t most = sequences * std::min(labels_of_window, all);
    const Tensor labels(&nothing, DType::i32, device, {most});
    batch.labels = {labels, labels, rows};
  }
  return batch;
}

std::size_t measure_arena(const ModelConfig& model, DType dtype, std::int64_t sequences,
                          std::int64_t recompute_blocks, DeviceKind device) {
  NullBackend backend(device);
  ParameterStore store;
  const Transformer transformer(store, model, recompute_blocks);
  store.allocate(backend, dtype);
  Arena arena = Arena::measuring(backend, "measuring");
  const Context context{backend, arena, dtype};
  const BatchView batch =
      batch_without_memory(sequences, model.seq_len, one_rank(), device, model.seq_len);
  Tensor losses = arena.take(DType::f64, {batch.rows()});
  transformer.train(context, batch, losses, 1);
  return arena.high_water();
}

std::int64_t recompute_blocks_of(const RunConfig& config) {
  if (config.parallel.recompute == "none") return 0;
  return config.parallel.recompute_blocks == 0 ? config.model.n_layers
                                               : config.parallel.recompute_blocks;
}

ModelInstance::ModelInstance(Backend& backend, const ModelConfig& model, DType dtype,
                             std::int64_t sequences, std::int64_t recompute_blocks,
                             std::uint64_t seed, MasterWeights masters)
    : backend_(backend),
      dtype_(dtype),
      sequences_(sequences),
      model_(store_, model, recompute_blocks),
      arena_(backend, "micro-batch",
             measure_arena(model, dtype, sequences, recompute_blocks, backend.device())) {
  store_.allocate(backend, dtype, {true, true, masters});
  store_.initialize(seed);
}

InstanceLoss::InstanceLoss(ModelInstance& instance)
    : instance_(instance),
      device_batch_(instance.backend(), instance.sequences(), length()),
      scores_(instance.backend(), device_batch_.view().rows(), instance.context().dtype) {}

BatchScore InstanceLoss::score(const Batch& batch) {
  const BatchView& view = device_batch_.load(batch);
  instance_.model().evaluate(instance_.context(), view, scores_.losses(), scores_.statistics());
  return scores_.sum(view.targets);
}

}  // namespace convoy
