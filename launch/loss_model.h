// LossModel: whatever gives the loss of a batch without learning from it.
#pragma once

#include "data/batch.h"

namespace convoy {

class LossModel {
 public:
  virtual ~LossModel() = default;
  virtual std::int64_t sequences() const = 0;  // that a batch must have
  virtual std::int64_t length() const = 0;
  // Around a run of evaluations: for weights that must be brought together first.
  virtual void begin_evaluation() {}
  virtual void end_evaluation() {}
  // This rank's share of the batch's summed nats. Collective over the ranks that share a model.
  virtual double nats(const Batch& batch) = 0;
};

}  // namespace convoy
