// A Scalar as a kernel takes it.
#pragma once

#include "core/scalar.h"

namespace convoy::cuda {

template <class W>
struct KernelScalar {
  W known;
  const double* where;  // null: `known`

  explicit KernelScalar(const Scalar& scalar)
      : known(static_cast<W>(scalar.known())), where(scalar.where()) {}
  __device__ W read() const { return where == nullptr ? known : static_cast<W>(*where); }
};

}  // namespace convoy::cuda
