// The status codes of CUDA's libraries as errors, in one place.
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
