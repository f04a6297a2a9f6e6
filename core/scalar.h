// Scalar: a number that an operation takes. The host knows it when it asks for the operation; or it
// lies in the device's memory, f64 [1], and is read when the operation runs. In a recorded region
// (core/recorded_region.h) only the second kind may differ from run to run.
#pragma once

#include "core/tensor.h"

namespace convoy {

class Scalar {
 public:
  Scalar(double value) : value_(value) {}  // NOLINT(google-explicit-constructor): a number is one
  explicit Scalar(const Tensor& memory) : memory_(memory) {
    CHECK(memory.dtype() == DType::f64 && memory.size() == 1, "a scalar in ", memory.describe());
  }

  bool in_memory() const { return !memory_.empty(); }
  const Tensor& memory() const { return memory_; }
  // Where it is read when the operation runs; null: the host knows it.
  const double* where() const { return in_memory() ? memory_.data<double>() : nullptr; }
  double known() const { return value_; }  // 0 where it lies in memory
  // On a CPU, whose memory the host reads.
  double read() const { return in_memory() ? *where() : value_; }

 private:
  double value_ = 0;
  Tensor memory_;
};

}  // namespace convoy
