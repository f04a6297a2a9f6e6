// The status codes of CUDA's libraries as errors, and a copy that is over when it returns.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include "core/error.h"

#define CUDA_CHECK(call)                                                          \
  do {                                                                            \
    const cudaError_t cuda_status = (call);                                       \
    CHECK(cuda_status == cudaSuccess, "CUDA: ", cudaGetErrorString(cuda_status)); \
  } while (false)

#define CUBLAS_CHECK(call)                                       \
  do {                                                           \
    const cublasStatus_t cublas_status = (call);                 \
    CHECK(cublas_status == CUBLAS_STATUS_SUCCESS,                \
          "cuBLASLt: ", cublasLtGetStatusString(cublas_status)); \
  } while (false)

namespace convoy::cuda {

// From the host's memory into the device's, in the order of a stream, and there on return. A plain
// cudaMemcpy may return while the last of it is on its way in a stream of its own, which a
// non-blocking stream does not wait for.
inline void copy_to_device(void* device, const void* host, std::size_t bytes, cudaStream_t stream) {
  CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream));
  CUDA_CHECK(cudaStreamSynchronize(stream));
}

}  // namespace convoy::cuda
