// Values that come to the host behind its back: each copy goes to a piece of pinned memory and is
// followed by an event, which waiting for it waits for; what the stream does after it goes on.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "core/backend.h"

namespace convoy::cuda {

class Arrivals {
 public:
  explicit Arrivals(cudaStream_t stream) : stream_(stream) {}
  ~Arrivals();
  Arrivals(const Arrivals&) = delete;
  Arrivals& operator=(const Arrivals&) = delete;

  std::unique_ptr<Arrival> start(void* host, const void* device, std::size_t bytes);

 private:
  struct Piece {
    std::byte* data = nullptr;
    std::size_t capacity = 0;
    cudaEvent_t passed = nullptr;
  };
  class InPiece;

  Piece take(std::size_t bytes);

  cudaStream_t stream_;
  std::vector<Piece> free_;
};

}  // namespace convoy::cuda
