// Where the taps of a row read from, and where the gradients of what they read go: rows of x, rows
// of the halo before a segment, or nowhere when a tap would cross the start of a document.
#pragma once

#include <algorithm>

#include "core/backend.h"

namespace convoy::cpu {

// Calls function(begin, end) for the runs of rows that a call computes.
template <class Function>
void for_each_run(const ConvRows& rows, int width, Function function) {
  if (rows.part == ConvPart::all) return function(0, rows.segments * rows.length);
  const std::int64_t boundary = std::min<std::int64_t>(width - 1, rows.length);
  for (std::int64_t begin = 0; begin < rows.segments * rows.length; begin += rows.length) {
    if (rows.part == ConvPart::boundary) {
      function(begin, begin + boundary);
    } else {
      function(begin + boundary, begin + rows.length);
    }
  }
}

// The row that tap w of `row` reads; `outside` stands for rows that may not be seen.
template <class T>
class TapRows {
 public:
  TapRows(Tensor x, Tensor halo, const ConvRows& rows, int width, T* outside)
      : halo_(halo),
        reach_(rows.reach.data<std::int32_t>()),
        x_data_(x.data<T>()),
        stride_(x.row_stride()),
        length_(rows.length),
        width_(width),
        outside_(outside) {}

  T* at(std::int64_t row, int w) const {
    if (w > reach_[row]) return outside_;
    const std::int64_t place = row % length_ - w;
    if (place >= 0) return x_data_ + (row - w) * stride_;
    CHECK(!halo_.empty(), "row ", row, " reaches ", w, " rows back, before its segment of ",
          length_, " rows, and no halo is given");
    return halo_.row<T>(row / length_ * (width_ - 1) + width_ - 1 + place);
  }

 private:
  Tensor halo_;
  const std::int32_t* reach_;
  T* x_data_;
  std::int64_t stride_;
  std::int64_t length_;
  int width_;
  T* outside_;
};

}  // namespace convoy::cpu
