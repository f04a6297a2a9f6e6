// What RMSNorm is over: groups of neighbouring channels of a row, of one width.
#pragma once

#include <cstdint>

#include "core/cuda/elements.cuh"

namespace convoy::cuda {

// Groups are numbered in 32 bits: a division of 64 is as much work as the norm of a narrow row.
struct Groups {
  std::uint32_t count, per_row;
  std::int64_t width;

  __device__ std::int64_t row(std::uint32_t group) const { return group / per_row; }
  __device__ std::int64_t of_row(std::uint32_t group) const { return group % per_row; }
  __device__ std::int64_t column(std::uint32_t group) const { return of_row(group) * width; }
};

inline Groups groups_of(const Tensor& x, std::int64_t width) {
  const std::int64_t per_row = x.cols() / width, count = x.rows() * per_row;
  CHECK(count < std::int64_t{1} << 31, "norm of ", count, " groups of ", width, " channels");
  return {static_cast<std::uint32_t>(count), static_cast<std::uint32_t>(per_row), width};
}

}  // namespace convoy::cuda
