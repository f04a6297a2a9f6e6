// Matmuls through cuBLASLt. For each shape the library's first heuristic is taken that sums in a
// fixed order (no split of the depth that adds in place); nothing is chosen by measuring.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <map>

#include "core/backend.h"

namespace convoy::cuda {

class MatmulLibrary {
 public:
  explicit MatmulLibrary(cudaStream_t stream);
  ~MatmulLibrary();
  MatmulLibrary(const MatmulLibrary&) = delete;
  MatmulLibrary& operator=(const MatmulLibrary&) = delete;

  // Whether the library did it: not every mixture of dtypes and strides can be done.
  bool run(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
           Accumulate accumulate);

 private:
  // What decides the algorithm: sizes, strides, transposes, dtypes, alignment of the pointers.
  using Key = std::array<std::int64_t, 11>;
  struct Plan {
    bool usable = false;
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };

  const Plan& plan_for(const Key& key, const Tensor& c, const Tensor& a, Transpose transpose_a,
                       const Tensor& b, Transpose transpose_b);

  cudaStream_t stream_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, Plan> plans_;
};

}  // namespace convoy::cuda
