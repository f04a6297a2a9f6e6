// A micro-batch as the layers of one rank see it, in device memory: of each of B sequences the rows
// of this rank's share under context parallelism. Between the layers a rank may hold fewer of them
// (sequence parallelism): its own rows.
#pragma once

#include "core/tensor.h"

namespace convoy {

// The positions that have a label, where they are few.
struct Labels {
  Tensor rows;     // i32 [n], ascending
  Tensor targets;  // i32 [n]
  Tensor place;    // i32 [rows]: a row's index among the n; n of a row without a label
};

struct BatchView {
  std::int64_t sequences, length;  // B; rows of a sequence here: T on one rank, T / cp in general
  Tensor tokens;                   // i32 [rows]
  Tensor targets;                  // i32 [rows], -1 where a row does not count
  Tensor positions;                // i32 [rows], within the window
  Tensor document_start;           // i32 [rows], position where the row's document starts
  Tensor reach;                    // i32 [rows], rows a tap may look back (at most 7)
  Tensor own_reach = reach;        // i32 [own_rows], the same of this rank's own rows
  bool one_document = false;       // promised: document_start is 0 everywhere
  Labels labels = {};              // absent: the head works on all rows

  std::int64_t rows() const { return sequences * length; }
  std::int64_t own_rows() const { return own_reach.size(); }
};

}  // namespace convoy
