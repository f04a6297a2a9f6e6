// TrainingStep: one optimizer step, the gradients of the global batch and the update. On a lone
// rank all of the device's work between the arrival of the batch in its memory and the optimizer's
// decision is one region (core/recorded_region.h), which a GPU records and replays: the host then
// asks for a step at once, and while the device is busy with it brings the next batch there.
#pragma once

#include <string>

#include "core/recorded_region.h"
#include "launch/gradient_step.h"
#include "launch/optimizer.h"

namespace convoy {

struct StepOutcome {
  bool stop_requested = false;  // on any rank: nothing was done
  double loss = 0;              // nats per counted target of the global batch
  UpdateResult update{};
};

// Why a step of this run is not recorded on a device that records; empty where it is.
std::string why_not_recorded(const RunConfig& config, int ranks);

class TrainingStep {
 public:
  TrainingStep(const RunConfig& config, const Layout& layout, Backend& backend,
               PipelineModel& model, GradientStep& gradients, Optimizer& optimizer);

  // Steps 1.. in any order; `stop` is this rank's wish to stop. Collective.
  StepOutcome run(std::int64_t step, double learning_rate, bool stop);

  const RecordedRegion& recording() const { return region_; }

 private:
  StepOutcome run_alone(std::int64_t step, double learning_rate, bool stop);
  void load(std::int64_t step);

  const RunConfig& config_;
  bool alone_;
  Backend& backend_;
  PipelineModel& model_;
  GradientStep& gradients_;
  Optimizer& optimizer_;
  RecordedRegion region_;
  OwnedTensor loss_;              // f64 [1]: summed nats, finite where the loss is
  std::int64_t loaded_step_ = 0;  // whose batch is in the device's memory
  double targets_ = 0;            // counted, of that step
};

}  // namespace convoy
