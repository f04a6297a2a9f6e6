// A micro-batch as the layers see it: B sequences of T rows, in device memory.
#pragma once

#include "core/tensor.h"

namespace convoy {

struct BatchView {
  std::int64_t sequences, length;  // B, T
  Tensor tokens;                   // i32 [B*T]
  Tensor targets;                  // i32 [B*T], -1 where a row does not count
  Tensor positions;                // i32 [B*T], within the window
  Tensor document_start;           // i32 [B*T], position where the row's document starts
  Tensor reach;                    // i32 [B*T], rows a tap may look back (at most 7)
  bool one_document = false;       // promised: document_start is 0 everywhere

  std::int64_t rows() const { return sequences * length; }
};

}  // namespace convoy
