#include <cblas.h>

#include "core/cpu/matmul_library.h"

// OpenBLAS has its own way to say it; other libraries are told through the environment.
extern "C" void openblas_set_num_threads(int threads) __attribute__((weak));

namespace convoy::cpu {

std::string_view matmul_library_name() { return "CBLAS"; }

void use_one_matmul_thread() {
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(1);
}

bool library_matmul(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                    std::int64_t k, const float* a, std::int64_t lda, const float* b,
                    std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
              transpose_b ? CblasTrans : CblasNoTrans, static_cast<int>(m), static_cast<int>(n),
              static_cast<int>(k), 1.0f, a, static_cast<int>(lda), b, static_cast<int>(ldb), beta,
              c, static_cast<int>(ldc));
  return true;
}

}  // namespace convoy::cpu
