// The gradients of one global batch: this rank's micro-batches forward and backward, then the sum
// over data parallel ranks. Loss = summed nats / counted targets of the *global* batch, a number
// that is known before the first backward pass.
#pragma once

#include <optional>

#include "data/training_data.h"
#include "launch/device_batch.h"
#include "launch/model_instance.h"
#include "parallel/communicator.h"
#include "parallel/tree_sum.h"

namespace convoy {

struct StepResult {
  double loss;          // nats per counted target of the global batch
  double wait_seconds;  // spent waiting for other ranks
  bool stop_requested;  // on any rank
};

class GradientStep {
 public:
  GradientStep(const RunConfig& config, ModelInstance& instance, Communicator& ranks,
               const TrainingData& data);

  // Leaves the gradients of step s = 1.. in instance.store(). `stop` is this rank's wish to stop.
  StepResult run(std::int64_t step, bool stop);

 private:
  void load_batches(std::int64_t first_sample);
  bool agree_to_stop(bool stop);
  double run_micro_batch(std::int64_t local, double scale);  // its summed nats
  void reduce_gradients();
  double sum_over_micro_batches(std::vector<double> sums);  // in order of the global index

  const RunConfig& config_;
  ModelInstance& instance_;
  Communicator& ranks_;
  const TrainingData& data_;
  std::int64_t count_, first_;  // this rank's micro-batches: global indices [first, first + count)
  std::vector<Batch> batches_;
  DeviceBatch device_batch_;
  OwnedTensor losses_;
  std::vector<double> host_losses_;
  std::optional<TreeSum> tree_;  // invariant mode
  double wait_seconds_ = 0;
};

}  // namespace convoy
