#include <dnnl.h>
#include <omp.h>

#include <string>

#include "core/cpu/matmul_library.h"
#include "core/error.h"

namespace convoy::cpu {

std::string_view matmul_library_name() {
  static const std::string name = [] {
    const dnnl_version_t* version = dnnl_version();
    return concat("oneDNN ", version->major, '.', version->minor, '.', version->patch);
  }();
  return name;
}

void use_one_matmul_thread() { omp_set_num_threads(1); }

bool library_matmul(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                    std::int64_t k, const float* a, std::int64_t lda, const float* b,
                    std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
  const auto status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, 1.0f, a,
                                 lda, b, ldb, beta, c, ldc);
  CHECK(status == dnnl_success, "oneDNN sgemm returned ", static_cast<int>(status), " for m ", m,
        ", n ", n, ", k ", k);
  return true;
}

}  // namespace convoy::cpu
