// What operations check before they run, and how they enter the trace.
#pragma once

#include <initializer_list>
#include <string_view>

#include "core/ops.h"
#include "core/trace.h"

namespace convoy::ops {

// An operation in the backend's trace.
struct Recorded : TraceSpan {
  Recorded(const Context& context, std::string_view name)
      : TraceSpan(context.backend.trace(), Trace::Kind::operation, name) {}
};

inline void expect_shape(const Tensor& t, std::int64_t rows, std::int64_t cols,
                         std::string_view what) {
  CHECK(!t.empty(), what, " is not given");
  CHECK(t.rows() == rows && t.cols() == cols, what, " is ", t.describe(), ", expected ", rows,
        " rows of ", cols);
}

inline void expect_like(const Tensor& t, const Tensor& reference, std::string_view what) {
  expect_shape(t, reference.rows(), reference.cols(), what);
  CHECK(t.dtype() == reference.dtype(), what, " is ", t.describe(), ", expected dtype ",
        name_of(reference.dtype()));
}

inline void expect_indices(const Tensor& t, std::int64_t count, std::string_view what) {
  CHECK(t.dtype() == DType::i32 && t.size() == count && t.contiguous(), what, " is ", t.describe(),
        ", expected ", count, " contiguous i32");
}

inline void expect_device(const Context& context, std::initializer_list<Tensor> tensors) {
  for (const auto& t : tensors) {
    CHECK(t.empty() || t.device() == context.backend.device(), "tensor ", t.describe(),
          " is not on the device of the ", context.backend.name(), " backend");
  }
}

}  // namespace convoy::ops
