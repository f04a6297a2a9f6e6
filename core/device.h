// Which devices this program can run on. A program built without CUDA knows the CPU alone.
#pragma once

#include <memory>
#include <string>

#include "core/backend.h"

namespace convoy {

int cuda_device_count();  // 0 without a GPU, a driver or the CUDA backend

// What a run records of a GPU.
struct CudaDeviceInfo {
  std::string name, uuid;  // "NVIDIA H100 80GB HBM3", "GPU-..."
  std::string libraries;   // "CUDA 13.0, driver 13.0, cuBLASLt 13.0.2, cuDNN 9.19.0"
  double memory_bytes;
};
CudaDeviceInfo cuda_device_info(int device);
// Bytes of its memory that are taken now, by this program, its libraries and anyone else.
double cuda_memory_taken(int device);

// Throws where there is no such GPU, or "built without CUDA".
std::unique_ptr<Backend> make_cuda_backend(NumericsMode mode, int device,
                                           Deterministic deterministic = Deterministic::yes);

}  // namespace convoy
