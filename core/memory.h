// Who owns memory: a Buffer owns one allocation of a device; an Arena hands out parts of a Buffer
// by bumping an offset, so that what lives and dies together (the activations of one micro-batch)
// is freed together. Taking memory never allocates: an arena that is full is an error that names
// the arena and what it needed.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>

#include "core/tensor.h"

namespace convoy {

class Backend;

class Buffer {
 public:
  Buffer() = default;
  Buffer(Backend& backend, std::size_t bytes);  // zeroed
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Backend* backend_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// One tensor with its own memory, for what lives as long as the run.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  OwnedTensor(Backend& backend, DType dtype, std::initializer_list<std::int64_t> shape);
  const Tensor& view() const { return view_; }

 private:
  Buffer buffer_;
  Tensor view_;
};

class Arena {
 public:
  using Mark = std::size_t;
  static constexpr std::size_t kAlignment = 256;  // bytes; the start of each tensor

  Arena(Backend& backend, std::string name, std::size_t bytes);
  // Measures only: hands out tensors that must not be touched and records how much was asked for.
  static Arena measuring(Backend& backend, std::string name);

  Tensor take(DType dtype, std::initializer_list<std::int64_t> shape);
  Mark mark() const { return used_; }
  void release(Mark mark);                                // frees everything taken since `mark`
  std::size_t high_water() const { return high_water_; }  // bytes

 private:
  struct MeasureOnly {};
  Arena(Backend& backend, std::string name, MeasureOnly);

  Buffer buffer_;
  DeviceKind device_;
  std::string name_;
  std::size_t capacity_ = 0;
  std::size_t used_ = 0;
  std::size_t high_water_ = 0;
};

// Frees what was taken from an arena inside a scope.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace convoy
