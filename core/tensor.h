// Tensor: a non-owning view of up to four dimensions whose last dimension is contiguous.
// Everything before the last dimension is "rows", which may lie `row_stride` elements apart, so
// that a range of columns of a wider matrix is a Tensor too. Copying a Tensor copies the view.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/dtype.h"

namespace convoy {

enum class DeviceKind : std::uint8_t { cpu, cuda };

class Tensor {
 public:
  static constexpr int kMaxDims = 4;

  Tensor() = default;
  // A contiguous tensor over `data`.
  Tensor(void* data, DType dtype, DeviceKind device, std::span<const std::int64_t> shape);
  Tensor(void* data, DType dtype, DeviceKind device, std::initializer_list<std::int64_t> shape)
      : Tensor(data, dtype, device, std::span(shape.begin(), shape.size())) {}

  bool empty() const { return data_ == nullptr; }  // "not given", as an optional argument
  DType dtype() const { return dtype_; }
  DeviceKind device() const { return device_; }
  int dims() const { return dims_; }
  std::int64_t dim(int i) const { return shape_[static_cast<std::size_t>(i)]; }
  std::span<const std::int64_t> shape() const {
    return {shape_.data(), static_cast<std::size_t>(dims_)};
  }
  std::int64_t rows() const;  // product of all dimensions but the last
  std::int64_t cols() const { return dims_ == 0 ? 1 : dim(dims_ - 1); }
  std::int64_t size() const { return rows() * cols(); }
  std::int64_t row_stride() const { return row_stride_; }
  bool contiguous() const { return row_stride_ == cols() || rows() <= 1; }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_of(dtype_); }

  void* data() const { return data_; }
  template <class T>
  T* data() const {
    CHECK(dtype_ == DTypeOf<T>::value, "tensor ", describe(), " read as ",
          name_of(DTypeOf<T>::value));
    return static_cast<T*>(data_);
  }
  template <class T>
  T* row(std::int64_t i) const {
    return data<T>() + i * row_stride_;
  }

  Tensor row_range(std::int64_t begin, std::int64_t count) const;     // [count, cols]
  Tensor column_range(std::int64_t begin, std::int64_t count) const;  // [rows, count]
  Tensor reshape(std::initializer_list<std::int64_t> shape) const;    // contiguous tensors only

  std::string describe() const;  // "f32[8, 256, 128]"

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::f32;
  DeviceKind device_ = DeviceKind::cpu;
  int dims_ = 0;
  std::array<std::int64_t, kMaxDims> shape_{};
  std::int64_t row_stride_ = 0;
};

}  // namespace convoy
