#include "launch/step_findings.h"

#include <numeric>

namespace convoy {

void StepFindings::fetch(Backend& backend, const Tensor& nats, const Optimizer& optimizer) {
  nats_.resize(static_cast<std::size_t>(nats.size()));
  arriving_nats_ =
      backend.copy_behind(Tensor(nats_.data(), DType::f64, DeviceKind::cpu, {nats.size()}), nats);
  arriving_control_ = optimizer.fetch(control_);
}

void StepFindings::wait() {
  for (auto* arriving : {&arriving_nats_, &arriving_control_}) {
    if (*arriving) (*arriving)->wait();
    arriving->reset();
  }
}

double StepFindings::nats() const { return std::accumulate(nats_.begin(), nats_.end(), 0.0); }

}  // namespace convoy
