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

 private:
  std::vector<Batch> loaded(std::int64_t first_sample) const;
  // The batches of a step, loaded while the step before ran, or now.
  void take_batches(std::int64_t first_sample);
  void load_ahead(std::int64_t first_sample);
  bool agree_to_stop(bool stop);
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
