// StepFindings: what a step leaves in the device's memory for the host, on its way there while the
// device goes on.
#pragma once

#include <memory>
#include <vector>

#include "launch/optimizer.h"

namespace convoy {

class StepFindings {
 public:
  StepFindings() = default;
  StepFindings(const StepFindings&) = delete;  // the arrivals know where to
  StepFindings& operator=(const StepFindings&) = delete;

  // Of the step that the backend was asked for last; nats f64 [micro-batches].
  void fetch(Backend& backend, const Tensor& nats, const Optimizer& optimizer);
  void wait();

  // After wait():
  double nats() const;  // of all micro-batches, in their order
  UpdateResult update() const { return Optimizer::result_of(control_); }

 private:
  std::vector<double> nats_;
  Optimizer::Control control_{};
  std::unique_ptr<Arrival> arriving_nats_, arriving_control_;
};

}  // namespace convoy
