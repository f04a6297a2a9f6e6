// One micro-batch in device memory, with what follows from its document starts.
#pragma once

#include "core/memory.h"
#include "data/batch.h"
#include "models/batch_view.h"

namespace convoy {

class DeviceBatch {
 public:
  DeviceBatch(Backend& backend, std::int64_t sequences, std::int64_t length);

  // Copies a batch of the same shape and computes positions and reach.
  const BatchView& load(const Batch& batch);
  const BatchView& view() const { return view_; }

 private:
  Backend& backend_;
  OwnedTensor tokens_, targets_, positions_, document_start_, reach_;
  BatchView view_;
};

}  // namespace convoy
