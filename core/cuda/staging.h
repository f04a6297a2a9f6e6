// Pinned memory through which host values travel to the device while the host goes on: a ring of
// pieces, each free again when the copy from it has passed.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstddef>

namespace convoy::cuda {

class Staging {
 public:
  static constexpr std::size_t kLargest = std::size_t{4} << 20;  // bytes of one copy

  explicit Staging(cudaStream_t stream) : stream_(stream) {}
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // The host's values may be changed when this returns; the device has them in stream order.
  void copy(void* to, const void* host, std::size_t bytes);

 private:
  struct Piece {
    std::byte* data = nullptr;
    std::size_t capacity = 0;
    cudaEvent_t passed = nullptr;
  };

  cudaStream_t stream_;
  std::array<Piece, 32> ring_;
  std::size_t next_ = 0;
};

}  // namespace convoy::cuda
