// One micro-batch in device memory: the rows of this rank, with what follows from their document
// starts.
#pragma once

#include "core/memory.h"
#include "data/batch.h"
#include "models/batch_rows.h"
#include "models/batch_view.h"
#include "models/sharding.h"

namespace convoy {

class DeviceBatch {
 public:
  // Of whole batches of so many sequences of so many positions. Where a window has fewer labels
  // than positions the view names them.
  DeviceBatch(Backend& backend, std::int64_t sequences, std::int64_t length,
              const Sharding& sharding = one_rank());
  DeviceBatch(Backend& backend, std::int64_t sequences, std::int64_t length,
              const Sharding& sharding, std::int64_t labels_of_window);

  // Copies this rank's rows of a batch of that shape.
  const BatchView& load(const Batch& batch);
  const BatchView& view() const { return view_; }

 private:
  void load_labels();

  Backend& backend_;
  Sharding sharding_;
  std::int64_t sequences_, length_;  // whole
  OwnedTensor tokens_, targets_, positions_, document_start_, reach_, own_reach_;
  OwnedTensor label_rows_, label_targets_, label_place_;  // none where all positions have a label
  BatchView view_{};
  BatchRows rows_;  // of the batch at hand, on the host
  LabelRows labels_;
};

}  // namespace convoy
