// Working memory of one CPU operation: grows to the largest need seen and is reused, so that no
// allocation happens once the first step has run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace convoy::cpu {

class Scratch {
 public:
  // Starts an operation: everything taken before is free again.
  void reset() { used_ = 0; }

  template <class T>
  T* take(std::int64_t count) {
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(take_bytes(bytes + 64));
  }

 private:
  std::byte* take_bytes(std::size_t bytes) {
    if (used_ == blocks_.size()) blocks_.emplace_back();
    Block& block = blocks_[used_++];
    if (block.capacity < bytes) {
      block.data = std::make_unique<std::byte[]>(bytes);
      block.capacity = bytes;
    }
    const auto address = reinterpret_cast<std::uintptr_t>(block.data.get());
    return block.data.get() + (64 - address % 64) % 64;
  }

  struct Block {
    std::unique_ptr<std::byte[]> data;
    std::size_t capacity = 0;
  };
  std::vector<Block> blocks_;
  std::size_t used_ = 0;
};

}  // namespace convoy::cpu
