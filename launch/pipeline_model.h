// PipelineModel: this rank's stages of a model that is spread over ranks, and the executor that
// runs them through a step. The one-rank model is one stage.
#pragma once

#include <memory>
#include <string>

#include "launch/loss_model.h"
#include "launch/own_part.h"
#include "launch/stage_instance.h"
#include "parallel/pipeline/executor.h"

namespace convoy {

class PipelineModel final : public LossModel {
 public:
  // Parameters are initialised from the seed of the configuration.
  PipelineModel(const RunConfig& config, const Layout& layout, Backend& backend);

  // The gradients of a step, summed over everything, in the own parts' tensors.
  void run_step(const StepInput& input);
  // The same of a lone rank in two: what goes to the device, at any time before, and the operations
  // of the step that was loaded last. Its nats stay in the device's memory, f64 [micro-batches].
  void load(const StepInput& input);
  void run_loaded_step();
  std::vector<std::int64_t> loaded_shape() const;  // what run_loaded_step branches on
  const Tensor& nats() const { return stages_.back()->nats(); }
  // Of all stages; their tensors stay where they are.
  const std::vector<OwnPart>& own_parts() const { return parts_; }
  // After the values of the own parts have changed.
  void publish();

  std::int64_t sequences() const override { return config_.train.micro_batch; }
  std::int64_t length() const override { return config_.model.seq_len; }
  void begin_evaluation() override;
  void end_evaluation() override;
  BatchScore score(const Batch& batch) override;

 private:
  void make_workspace();
  void make_gather_pool();
  void list_parts(StageInstance& stage);
  StageSettings settings_of(int stage) const;
  std::int64_t own_rows() const;
  void finish_gradients();
  void sum_over_tp();
  void add_tied_gradients();
  void exchange_tied(const Tensor& gradient, int peer);
  StageInstance* stage_with(bool first) const;

  RunConfig config_;
  const Layout& layout_;
  Backend& backend_;
  RankMemory memory_;
  std::vector<std::unique_ptr<StageInstance>> stages_;  // ascending
  std::optional<PipelineExecutor> executor_;
  std::vector<OwnPart> parts_;
  OwnedTensor tied_;                            // the other stage's gradient of the tied table
  OwnedTensor evaluation_in_, evaluation_out_;  // [own_rows, D]
};

}  // namespace convoy
