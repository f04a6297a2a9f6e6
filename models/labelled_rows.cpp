#include "models/labelled_rows.h"

namespace convoy {

// A look-up in the rows as if they were an embedding's table.
Tensor LabelledRows::gathered(Tensor rows) const {
  if (all()) return rows;
  const Tensor found = room_for(rows);
  ops::embedding_forward(context_, found, rows, batch_.labels.rows);
  return found;
}

Tensor LabelledRows::room_for(Tensor rows) const {
  return all() ? rows : context_.arena.take(rows.dtype(), {count(), rows.cols()});
}

// The other way it is a look-up too. Rows without a label ask for row n, which is of a part of the
// table that is not here, so that they get 0.
void LabelledRows::spread(Tensor rows, Tensor labelled) const {
  if (all()) return;
  ops::embedding_forward(context_, rows, labelled, batch_.labels.place, {0, count() + 1});
}

}  // namespace convoy
