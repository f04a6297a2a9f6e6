#include "core/cuda/arrivals.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/cuda/cuda_check.h"

namespace convoy::cuda {

// One that nobody waited for leaves its values where they are.
class Arrivals::InPiece final : public Arrival {
 public:
  InPiece(Arrivals& all, Piece piece, void* host, std::size_t bytes)
      : all_(all), piece_(piece), host_(host), bytes_(bytes) {}
  ~InPiece() override {
    cudaEventSynchronize(piece_.passed);
    all_.free_.push_back(piece_);
  }
  InPiece(const InPiece&) = delete;
  InPiece& operator=(const InPiece&) = delete;

  void wait() override {
    CUDA_CHECK(cudaEventSynchronize(piece_.passed));
    std::memcpy(host_, piece_.data, bytes_);
  }

 private:
  Arrivals& all_;
  Piece piece_;
  void* host_;
  std::size_t bytes_;
};

Arrivals::~Arrivals() {
  for (const Piece& piece : free_) {
    cudaEventDestroy(piece.passed);
    cudaFreeHost(piece.data);
  }
}

Arrivals::Piece Arrivals::take(std::size_t bytes) {
  const auto large = std::find_if(free_.begin(), free_.end(),
                                  [&](const Piece& piece) { return piece.capacity >= bytes; });
  if (large != free_.end()) {
    const Piece piece = *large;
    free_.erase(large);
    return piece;
  }
  constexpr std::size_t kLeast = 4096;
  Piece piece;
  void* data = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&piece.passed, cudaEventDisableTiming));
  piece.capacity = std::max(std::bit_ceil(bytes), kLeast);
  CUDA_CHECK(cudaMallocHost(&data, piece.capacity));
  piece.data = static_cast<std::byte*>(data);
  return piece;
}

std::unique_ptr<Arrival> Arrivals::start(void* host, const void* device, std::size_t bytes) {
  const Piece piece = take(bytes);
  auto arrival = std::make_unique<InPiece>(*this, piece, host, bytes);
  CUDA_CHECK(cudaMemcpyAsync(piece.data, device, bytes, cudaMemcpyDeviceToHost, stream_));
  CUDA_CHECK(cudaEventRecord(piece.passed, stream_));
  return arrival;
}

}  // namespace convoy::cuda
