// LabelledRows: where few positions of a batch have a label, the head and the loss work on the rows
// of these alone. Rows are gathered before, and what the head found is spread over all rows after;
// each row is copied once, so the order of the rows is all that the gradients' bits depend on.
// Where a batch does not name its labelled rows this is the identity, without a copy.
#pragma once

#include "core/ops.h"
#include "models/batch_view.h"

namespace convoy {

class LabelledRows {
 public:
  LabelledRows(const Context& context, const BatchView& batch) : context_(context), batch_(batch) {}

  // The targets of the head's rows, i32 [n].
  Tensor targets() const { return all() ? batch_.targets : batch_.labels.targets; }
  // rows [rows, C] -> [n, C].
  Tensor gathered(Tensor rows) const;
  // [n, C] of the same dtype for what becomes `rows` [rows, C], or `rows` itself.
  Tensor room_for(Tensor rows) const;
  // rows [rows, C] is set from what room_for gave: 0 where a row has no label.
  void spread(Tensor rows, Tensor labelled) const;

 private:
  bool all() const { return batch_.labels.place.empty(); }
  std::int64_t count() const { return batch_.labels.rows.size(); }

  const Context& context_;
  const BatchView& batch_;
};

}  // namespace convoy
