// TrainingStep: one optimizer step, the gradients of the global batch and the update. On a lone
// rank all of the device's work between the arrival of the batch in its memory and the optimizer's
// decision is one region (core/recorded_region.h), which a GPU records and replays: the host then
// asks for a step at once, and while the device is busy with it, brings the next batch there. Where
// nothing comes between two steps it also asks for the next before it hears of this one, so that
// the device never waits.
#pragma once

#include <memory>
#include <string>

#include "core/recorded_region.h"
#include "launch/gradient_step.h"
#include "launch/optimizer.h"
#include "launch/step_findings.h"

namespace convoy {

struct StepOutcome {
  bool stop_requested = false;  // on any rank: nothing was done
  double loss = 0;              // nats per counted target of the global batch
  double learning_rate = 0;
  UpdateResult update{};
};

// Whether the next step follows at once: nobody looks at weights or moments between.
enum class NextStep : bool { later, at_once };

// Why a step of this run is not recorded on a device that records; empty where it is.
std::string why_not_recorded(const RunConfig& config, int ranks);

// What a step is on a lone rank once its batches and learning rate are in the device's memory:
// gradients, their sum of nats in loss f64 [1], the update.
void run_loaded_step(RecordedRegion& region, Backend& backend, PipelineModel& model,
                     Optimizer& optimizer, const Tensor& loss);

class TrainingStep {
 public:
  TrainingStep(const RunConfig& config, const Layout& layout, Backend& backend,
               PipelineModel& model, GradientStep& gradients, Optimizer& optimizer);

  // Step s = 1.. `stop` is this rank's wish to stop; where the step has been begun by then, the one
  // after it stops. Collective.
  StepOutcome run(std::int64_t step, bool stop, NextStep next);

  const RecordedRegion& recording() const { return region_; }

 private:
  // A step that the device has been asked for.
  struct Begun {
    std::int64_t step = 0;
    double targets = 0, learning_rate = 0;
    StepFindings found;
  };

  StepOutcome run_together(std::int64_t step, bool stop);
  StepOutcome run_alone(std::int64_t step, bool stop, NextStep next);
  void load(std::int64_t step);
  void load_ahead(std::int64_t step);
  void begin(std::int64_t step);

  const RunConfig& config_;
  bool alone_;
  Backend& backend_;
  PipelineModel& model_;
  GradientStep& gradients_;
  Optimizer& optimizer_;
  RecordedRegion region_;
  OwnedTensor loss_;              // f64 [1]: summed nats, finite where the loss is
  std::int64_t loaded_step_ = 0;  // whose batch is in the device's memory, or on its way
  double targets_ = 0;            // counted, of that step
  std::unique_ptr<Begun> begun_;  // none: the next step has not been
};

}  // namespace convoy
