// The gradients of one global batch: this rank's micro-batches through its stages, and the sums.
// Loss = summed nats / counted targets of the *global* batch, a number that is known before the
// first backward pass.
#pragma once

#include <future>
#include <vector>

#include "data/training_data.h"
#include "launch/pipeline_model.h"

namespace convoy {

struct StepResult {
  double loss;          // nats per counted target of the global batch
  bool stop_requested;  // on any rank
};

class GradientStep {
 public:
  GradientStep(const RunConfig& config, const Layout& layout, PipelineModel& model,
               const TrainingData& data);

  // Leaves the gradients of step s = 1.. in the model's own parts. `stop` is this rank's wish.
  StepResult run(std::int64_t step, bool stop);

  // For a lone rank, whose model runs a step from the device's memory (PipelineModel::load):
  bool agree_to_stop(bool stop);
  bool has_targets(std::int64_t step) const;
  double load(std::int64_t step);  // puts the step's batches there; its counted targets

 private:
  std::int64_t step_samples() const { return micro_batches(config_) * config_.train.micro_batch; }
  std::int64_t first_sample_of(std::int64_t step) const { return (step - 1) * step_samples(); }
  // Counted targets of a step, and its batches at hand.
  double prepare(std::int64_t step);
  std::span<double> own_nats();
  std::vector<Batch> loaded(std::int64_t first_sample) const;
  // The batches of a step, loaded while the step before ran, or now.
  void take_batches(std::int64_t first_sample);
  void load_ahead(std::int64_t first_sample);
  double sum_over_micro_batches();  // in order of the global index

  const RunConfig& config_;
  const Layout& layout_;
  PipelineModel& model_;
  const TrainingData& data_;
  MicroBatchRange own_;  // this rank's micro-batches
  std::vector<Batch> batches_;
  std::vector<double> nats_;  // of all micro-batches
  // Last, because a thread that still loads must end before what it reads is gone.
  std::int64_t ahead_first_sample_ = -1;
  std::future<std::vector<Batch>> ahead_;
};

}  // namespace convoy
