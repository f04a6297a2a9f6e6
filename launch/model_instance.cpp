#include "launch/model_instance.h"

#include "core/null_backend.h"

namespace convoy {
namespace {

// A batch whose tensors have shapes but no memory.
BatchView batch_without_memory(std::int64_t sequences, std::int64_t length, DeviceKind device) {
  static std::int32_t nothing = 0;
  const Tensor rows(&nothing, DType::i32, device, {sequences * length});
  return {sequences, length, rows, rows, rows, rows, rows};
}

}  // namespace

std::size_t measure_arena(const ModelConfig& model, DType dtype, std::int64_t sequences,
                          std::int64_t recompute_blocks, DeviceKind device) {
  NullBackend backend(device);
  ParameterStore store;
  const Transformer transformer(store, model, recompute_blocks);
  store.allocate(backend, dtype);
  Arena arena = Arena::measuring(backend, "measuring");
  const Context context{backend, arena, dtype};
  const BatchView batch = batch_without_memory(sequences, model.seq_len, device);
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
  store_.allocate(backend, dtype, masters);
  store_.initialize(seed);
}

}  // namespace convoy
