#include "core/cuda/staging.h"

#include <bit>
#include <cstring>

#include "core/cuda/cuda_check.h"

namespace convoy::cuda {

Staging::~Staging() {
  for (Piece& piece : ring_) {
    if (piece.passed != nullptr) cudaEventDestroy(piece.passed);
    cudaFreeHost(piece.data);
  }
}

void Staging::copy(void* to, const void* host, std::size_t bytes) {
  CHECK(bytes <= kLargest, bytes, " bytes are staged at once, at most ", kLargest, " may be");
  Piece& piece = ring_[next_];
  next_ = (next_ + 1) % ring_.size();
  if (piece.passed == nullptr) {
    CUDA_CHECK(cudaEventCreateWithFlags(&piece.passed, cudaEventDisableTiming));
  } else {
    CUDA_CHECK(cudaEventSynchronize(piece.passed));
  }
  if (piece.capacity < bytes) {
    CUDA_CHECK(cudaFreeHost(piece.data));
    piece.data = nullptr;
    piece.capacity = 0;
    void* fresh = nullptr;
    CUDA_CHECK(cudaMallocHost(&fresh, std::bit_ceil(bytes)));
    piece.data = static_cast<std::byte*>(fresh);
    piece.capacity = std::bit_ceil(bytes);
  }
  std::memcpy(piece.data, host, bytes);
  CUDA_CHECK(cudaMemcpyAsync(to, piece.data, bytes, cudaMemcpyHostToDevice, stream_));
  CUDA_CHECK(cudaEventRecord(piece.passed, stream_));
}

}  // namespace convoy::cuda
