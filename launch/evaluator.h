// Validation: all windows of the data, or their first micro-batches.
#pragma once

#include "data/validation_data.h"
#include "launch/loss_model.h"
#include "parallel/communicator.h"

namespace convoy {

struct EvalResult {
  double loss = 0;           // nats per counted target
  double bits_per_byte = 0;  // nats / ln 2 / bytes that the counted targets decode to; else NaN
  double accuracy = 0;       // share of the counted targets with the highest logit
  double last_token_accuracy = 0;  // what a reader of the last token alone gets right; else NaN
  std::int64_t targets = 0, bytes = 0;
  // Of `loss`, as a ratio of sums over micro-batches; NaN where there is one only.
  double standard_error = 0;
};

// Which of several replicas of a model, each on one rank or several, a rank belongs to.
struct Replicas {
  Communicator& world;
  int count, index;
};

class Evaluator {
 public:
  // `batches` limits the micro-batches evaluated; 0: all.
  Evaluator(LossModel& model, const Replicas& replicas, const ValidationData& data,
            std::int64_t batches);

  EvalResult run();  // collective; the result is the same on every rank, whatever their number

 private:
  BatchScore run_micro_batch(std::int64_t index);  // this rank's share of its sums
  std::int64_t count(std::int64_t index, EvalResult& result) const;  // its targets, added too

  LossModel& model_;
  Replicas replicas_;
  const ValidationData& data_;
  std::int64_t micro_batches_;
  Batch batch_;
};

}  // namespace convoy
