#include "core/memory.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/backend.h"

namespace convoy {

Buffer::Buffer(Backend& backend, std::size_t bytes)
    : backend_(&backend),
      data_(static_cast<std::byte*>(backend.allocate_zeroed(bytes))),
      bytes_(bytes) {}

Buffer::Buffer(Buffer&& other) noexcept
    : backend_(std::exchange(other.backend_, nullptr)),
      data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(backend_, other.backend_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) backend_->deallocate(data_, bytes_);
}

namespace {
std::size_t bytes_of(DType dtype, std::initializer_list<std::int64_t> shape) {
  std::size_t bytes = size_of(dtype);
  for (const auto dim : shape) bytes *= static_cast<std::size_t>(dim);
  return bytes;
}
}  // namespace

OwnedTensor::OwnedTensor(Backend& backend, DType dtype, std::initializer_list<std::int64_t> shape)
    : buffer_(backend, std::max<std::size_t>(bytes_of(dtype, shape), 1)),
      view_(buffer_.data(), dtype, backend.device(), shape) {}

Arena::Arena(Backend& backend, std::string name, std::size_t bytes)
    : buffer_(backend, bytes),
      device_(backend.device()),
      name_(std::move(name)),
      capacity_(bytes) {}

Arena::Arena(Backend& backend, std::string name, MeasureOnly)
    : device_(backend.device()),
      name_(std::move(name)),
      capacity_(std::numeric_limits<std::size_t>::max() / 2) {}

Arena Arena::measuring(Backend& backend, std::string name) {
  return {backend, std::move(name), MeasureOnly{}};
}

Tensor Arena::take(DType dtype, std::initializer_list<std::int64_t> shape) {
  const std::size_t wanted = bytes_of(dtype, shape);
  const std::size_t rounded = (wanted + kAlignment - 1) / kAlignment * kAlignment;
  CHECK(rounded <= capacity_ - used_, "arena '", name_, "' of ", capacity_,
        " bytes is full: ", used_, " bytes are taken and ", wanted, " more are needed");
  // While only measuring, tensors get distinct addresses that nobody reads.
  std::byte* base =
      buffer_.data() != nullptr ? buffer_.data() : reinterpret_cast<std::byte*>(kAlignment);
  Tensor tensor(base + used_, dtype, device_, std::span(shape.begin(), shape.size()));
  used_ += rounded;
  high_water_ = std::max(high_water_, used_);
  return tensor;
}

void Arena::release(Mark mark) {
  CHECK(mark <= used_, "arena '", name_, "' is released to ", mark, " bytes but holds ", used_);
  used_ = mark;
}

}  // namespace convoy
