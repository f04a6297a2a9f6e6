// Matmuls through cuBLASLt. For each shape the algorithm that a table names is taken, else the
// library's first heuristic; always one that sums in a fixed order (no split of the depth that adds
// in place). Measuring fills the table.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/matmul_choices.h"

namespace convoy::cuda {

class MatmulLibrary {
 public:
  explicit MatmulLibrary(cudaStream_t stream);
  ~MatmulLibrary();
  MatmulLibrary(const MatmulLibrary&) = delete;
  MatmulLibrary& operator=(const MatmulLibrary&) = delete;

  void use(std::shared_ptr<MatmulChoices> choices, MeasureMatmuls measure, std::string card);

  // c = op(a) op(b), to which c or, where it is given, `addend` (laid out as c is) is added.
  // Whether the library did it: not every mixture of dtypes and strides can be done.
  bool run(const Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
           Transpose transpose_b, Accumulate accumulate, const Tensor& addend = {});

 private:
  // What decides the algorithm: sizes, strides, transposes, dtypes, alignment of the pointers.
  using Key = std::array<std::int64_t, 11>;
  struct Plan {
    bool usable = false;
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };
  struct Operands {
    Tensor c, a, b, addend;
    bool adds;
  };

  static Key key_of(const Operands& on, Transpose transpose_a, Transpose transpose_b);
  Plan& plan_for(const Key& key, const Operands& on, Transpose transpose_a, Transpose transpose_b);
  void choose(Plan& plan, const Key& key, const Operands& on);
  std::vector<cublasLtMatmulAlgo_t> candidates(const Plan& plan, const Operands& on, int most);
  void take_listed(Plan& plan, const std::string& algorithm, const std::string& shape);
  MatmulChoice measured(Plan& plan, const Operands& on,
                        const std::vector<cublasLtMatmulAlgo_t>& found);
  double seconds_of(const Plan& plan, const Operands& on);
  cublasStatus_t launch(const Plan& plan, const Operands& on);

  cudaStream_t stream_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, Plan> plans_;
  std::shared_ptr<MatmulChoices> choices_;
  MeasureMatmuls measure_ = MeasureMatmuls::no;
  std::string card_;
};

}  // namespace convoy::cuda
