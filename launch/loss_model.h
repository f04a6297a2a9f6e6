// LossModel: whatever judges a batch without learning from it.
#pragma once

#include "data/batch.h"

namespace convoy {

// Sums over the counted targets of a batch.
struct BatchScore {
  double nats = 0;
  std::int64_t right = 0;  // targets that no other class has a higher logit than
};

class LossModel {
 public:
  virtual ~LossModel() = default;
  virtual std::int64_t sequences() const = 0;  // that a batch must have
  virtual std::int64_t length() const = 0;
  // Around a run of evaluations: for weights that must be brought together first.
  virtual void begin_evaluation() {}
  virtual void end_evaluation() {}
  // This rank's share of the batch's sums. Collective over the ranks that share a model.
  virtual BatchScore score(const Batch& batch) = 0;
};

}  // namespace convoy
