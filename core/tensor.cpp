#include "core/tensor.h"

namespace convoy {

Tensor::Tensor(void* data, DType dtype, DeviceKind device, std::span<const std::int64_t> shape)
    : data_(data), dtype_(dtype), device_(device), dims_(static_cast<int>(shape.size())) {
  CHECK(!shape.empty() && shape.size() <= kMaxDims, "a tensor has 1 to 4 dimensions, not ",
        shape.size());
  for (std::size_t i = 0; i < shape.size(); ++i) {
    CHECK(shape[i] >= 0, "dimension ", i, " is ", shape[i]);
    shape_[i] = shape[i];
  }
  row_stride_ = cols();
}

std::int64_t Tensor::rows() const {
  std::int64_t product = 1;
  for (int i = 0; i + 1 < dims_; ++i) product *= dim(i);
  return product;
}

Tensor Tensor::row_range(std::int64_t begin, std::int64_t count) const {
  CHECK(begin >= 0 && count >= 0 && begin + count <= rows(), "rows [", begin, ", ", begin + count,
        ") of ", describe());
  auto* start = static_cast<std::byte*>(data_) +
                static_cast<std::size_t>(begin * row_stride_) * size_of(dtype_);
  Tensor view(start, dtype_, device_, {count, cols()});
  view.row_stride_ = row_stride_;
  return view;
}

Tensor Tensor::column_range(std::int64_t begin, std::int64_t count) const {
  CHECK(begin >= 0 && count >= 0 && begin + count <= cols(), "columns [", begin, ", ",
        begin + count, ") of ", describe());
  auto* start = static_cast<std::byte*>(data_) + static_cast<std::size_t>(begin) * size_of(dtype_);
  Tensor view(start, dtype_, device_, {rows(), count});
  view.row_stride_ = row_stride_;
  return view;
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> shape) const {
  CHECK(contiguous(), "only a contiguous tensor can be reshaped, ", describe(), " has row stride ",
        row_stride_);
  Tensor view(data_, dtype_, device_, shape);
  CHECK(view.size() == size(), describe(), " cannot be seen as ", view.describe());
  return view;
}

std::string Tensor::describe() const {
  std::string text(name_of(dtype_));
  for (int i = 0; i < dims_; ++i) text += (i == 0 ? "[" : ", ") + std::to_string(dim(i));
  return text + (dims_ == 0 ? "[]" : "]");
}

}  // namespace convoy
