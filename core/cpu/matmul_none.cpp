#include "core/cpu/matmul_library.h"

namespace convoy::cpu {

std::string_view matmul_library_name() { return "none"; }

void use_one_matmul_thread() {}

bool library_matmul(bool, bool, std::int64_t, std::int64_t, std::int64_t, const float*,
                    std::int64_t, const float*, std::int64_t, float, float*, std::int64_t) {
  return false;
}

}  // namespace convoy::cpu
