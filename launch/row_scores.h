// RowScores: where an evaluation pass leaves what it found of each row, in device memory, and what
// that adds up to.
#pragma once

#include <vector>

#include "core/memory.h"
#include "launch/loss_model.h"

namespace convoy {

class RowScores {
 public:
  RowScores(Backend& backend, std::int64_t rows, DType run);

  const Tensor& losses() const { return losses_.view(); }          // f64 [rows], nats
  const Tensor& statistics() const { return statistics_.view(); }  // [rows, 3], of the softmax

  double nats();                          // of the losses alone
  BatchScore sum(const Tensor& targets);  // i32 [rows] of the device, -1 where none counts

 private:
  Backend& backend_;
  OwnedTensor losses_, statistics_;
  std::vector<double> host_losses_;
  std::vector<std::byte> host_statistics_;
  std::vector<std::int32_t> host_targets_;
};

}  // namespace convoy
