// A model in memory: its parameters, its layers and the arena of one micro-batch.
#pragma once

#include "launch/config.h"
#include "launch/device_batch.h"
#include "launch/row_scores.h"
#include "models/transformer.h"

namespace convoy {

// Bytes that one training micro-batch takes from the arena, measured by running the model's own
// code without computing.
std::size_t measure_arena(const ModelConfig& model, DType dtype, std::int64_t sequences,
                          std::int64_t recompute_blocks, DeviceKind device = DeviceKind::cpu);
// A batch whose tensors have shapes but no memory; with so many labels a window, where they are
// fewer than its positions.
BatchView batch_without_memory(std::int64_t sequences, std::int64_t length,
                               const Sharding& sharding, DeviceKind device,
                               std::int64_t labels_of_window);
std::int64_t recompute_blocks_of(const RunConfig& config);

class ModelInstance {
 public:
  // Parameters are allocated and initialised from the seed.
  ModelInstance(Backend& backend, const ModelConfig& model, DType dtype, std::int64_t sequences,
                std::int64_t recompute_blocks, std::uint64_t seed,
                MasterWeights masters = MasterWeights::no);

  Context context() { return {backend_, arena_, dtype_}; }
  Backend& backend() { return backend_; }
  ParameterStore& store() { return store_; }
  const Transformer& model() const { return model_; }
  std::int64_t sequences() const { return sequences_; }

 private:
  Backend& backend_;
  DType dtype_;
  std::int64_t sequences_;
  ParameterStore store_;
  Transformer model_;
  Arena arena_;
};

// The loss of a whole model on one rank.
class InstanceLoss final : public LossModel {
 public:
  explicit InstanceLoss(ModelInstance& instance);

  std::int64_t sequences() const override { return instance_.sequences(); }
  std::int64_t length() const override { return instance_.model().config().seq_len; }
  BatchScore score(const Batch& batch) override;

 private:
  ModelInstance& instance_;
  DeviceBatch device_batch_;
  RowScores scores_;
};

}  // namespace convoy
