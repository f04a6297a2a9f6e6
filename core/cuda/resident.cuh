// Grids of blocks that stay: as many as a card holds at once, each for its share of the work.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/cuda/cuda_check.h"
#include "core/cuda/elements.cuh"

namespace convoy::cuda {

inline int processors() {
  static const int count = [] {
    int device = 0, processors = 0;
    CUDA_CHECK(cudaGetDevice(&device));
    CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    return processors;
  }();
  return count;
}

// Blocks for `work` blocks' worth of it, all resident and with equally much to do but for one
// round. `shared_bytes` is dynamic shared memory, which the kernel is allowed to take.
template <class... Parameters>
unsigned resident_blocks(void (*kernel)(Parameters...), int threads, int shared_bytes,
                         std::int64_t work) {
  int of_processor = 0;
  CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_processor, kernel, threads,
                                                           static_cast<std::size_t>(shared_bytes)));
  const std::int64_t resident = std::int64_t{std::max(of_processor, 1)} * processors();
  const std::int64_t rounds = std::max<std::int64_t>(ceil_div(work, resident), 1);
  return static_cast<unsigned>(ceil_div(work, rounds));
}

}  // namespace convoy::cuda
