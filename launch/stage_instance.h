// StageInstance: one pipeline stage in memory: its parameters, its piece of the model, a slot for
// each micro-batch that is on its way, the sums of its gradients. The executor calls it; what it
// shares with the other stages of its rank is in RankMemory.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>

#include "launch/device_batch.h"
#include "launch/gradient_sums.h"
#include "launch/layout.h"
#include "launch/row_scores.h"
#include "launch/stage_weights.h"
#include "parallel/pipeline/stage.h"

namespace convoy {

// Bytes that a stage takes: a slot for each micro-batch, and workspace, one for a rank.
struct StageBytes {
  std::size_t slot = 0, workspace = 0;
};

// What decides how a stage of a run looks.
struct StageSettings {
  const RunConfig& config;
  const Sharding& sharding;
  ModelPiece piece;
  bool splits_backward;
};

// Measured by running the model's own code without computing.
StageBytes measure_stage(const StageSettings& settings, DeviceKind device);

struct RankMemory {
  std::optional<Arena> workspace;
  std::array<Tensor, 2> rows;  // [own_rows, D], at the bottom of the workspace
  std::optional<GatherPool> gathered;
};

// What a step gives to the stages of a rank, by micro-batch of the rank.
struct StepInput {
  std::span<const Batch> batches;
  double scale;            // of the summed nats: 1 / counted targets of the global batch
  std::span<double> nats;  // set where the head is
};

class StageInstance final : public Stage {
 public:
  StageInstance(Backend& backend, const StageSettings& settings, const Layout& layout, int slots,
                RankMemory& memory);

  void begin_step(const StepInput& input);
  void end_step();  // the step's nats are known on the host
  // A step whose micro-batches and scale are in the device's memory before it begins, and whose
  // nats stay there: load() brings them there, and a step that begins loaded needs nothing of the
  // host.
  void load(const StepInput& input);
  void begin_loaded_step();
  // What a loaded step branches on: one number or more for each of its micro-batches.
  void describe_loaded(std::vector<std::int64_t>& shape) const;
  const Tensor& nats() const { return nats_.view(); }  // f64 [micro-batches]
  void forward(Visit visit, Tensor input, Tensor output) override;
  void backward_input(Visit visit, Tensor d_output, Tensor d_input) override;
  void backward_weight(Visit visit) override;
  void gather_weights() override { weights_.gather(*memory_.gathered); }
  void release_weights() override { weights_.release(*memory_.gathered); }

  // Forward alone, of weights that are there; this rank's share of the sums.
  BatchScore evaluate(const Batch& batch, Tensor input, Tensor output);

  const ParameterStore& store() const { return store_; }
  const TransformerStage& model() const { return model_; }
  const ModelPiece& piece() const { return settings_.piece; }
  StageWeights& weights() { return weights_; }
  GradientSums& sums() { return *sums_; }

 private:
  struct Slot {
    Arena arena;
    DeviceBatch batch;
    TransformerStage::Saved saved;
    const BatchView* view = nullptr;  // of the batch at hand: the slot's own, or one loaded before
  };

  DeviceBatch new_batch() const;
  const BatchView& batch_of(Slot& slot, std::int64_t micro_batch);
  TransformerStage::Pass pass(Slot& slot, const Context& context) const {
    return {context, *slot.view, slot.saved};
  }
  Context context(Arena& arena) const { return {backend_, arena, dtype_}; }
  ParameterStore& allocated(const Layout& layout);
  // Of the losses of a micro-batch: their sum, in the device's memory; one of the tp ranks counts
  // them.
  Tensor nats_of(std::int64_t micro_batch) const;
  void sum_losses(std::int64_t micro_batch);

  Backend& backend_;
  StageSettings settings_;
  RankMemory& memory_;
  DType dtype_;
  ParameterStore store_;
  TransformerStage model_;
  StageWeights weights_;
  std::unique_ptr<GradientSums> sums_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::optional<RowScores> scores_;  // where the head is
  OwnedTensor nats_;                 // f64 [micro-batches of the rank], the same
  StepInput input_{};
  bool is_loaded_ = false;           // the step at hand
  std::vector<DeviceBatch> loaded_;  // by micro-batch; none before load()
  OwnedTensor scale_;                // f64 [1], of a loaded step
};

}  // namespace convoy
