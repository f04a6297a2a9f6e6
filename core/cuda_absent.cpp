// In place of core/cuda/ where the program is built without CUDA.
#include "core/device.h"

namespace convoy {

namespace {
constexpr const char* kRemedy =
    "this program was built without CUDA; configure it with -DCONVOY_CUDA=on, or use the CPU "
    "(train.device = \"cpu\")";
}

int cuda_device_count() { return 0; }

CudaDeviceInfo cuda_device_info(int) { throw Error(kRemedy); }

double cuda_memory_taken(int) { throw Error(kRemedy); }

std::unique_ptr<Backend> make_cuda_backend(NumericsMode, int, Deterministic) {
  throw Error(kRemedy);
}

}  // namespace convoy
