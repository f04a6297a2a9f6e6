// The CPU matmul library this build was configured with; one small .cpp per provider.
#pragma once

#include <cstdint>
#include <string_view>

namespace convoy::cpu {

std::string_view matmul_library_name();  // "oneDNN 2.6", "CBLAS", "none"

// A rank is one thread: keeps the library from starting others, whatever the environment says.
void use_one_matmul_thread();

// Row-major c [m, n] = op(a) op(b) + beta c with leading dimensions. Returns false where this
// build has no library.
bool library_matmul(bool transpose_a, bool transpose_b, std::int64_t m, std::int64_t n,
                    std::int64_t k, const float* a, std::int64_t lda, const float* b,
                    std::int64_t ldb, float beta, float* c, std::int64_t ldc);

}  // namespace convoy::cpu
