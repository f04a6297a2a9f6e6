#include "core/cuda/cuda_backend.h"

#include <algorithm>

#include "core/cuda/arrivals.h"
#include "core/cuda/cuda_check.h"
#include "core/cuda/fixed_order_matmul.h"
#include "core/cuda/flash_attention.h"
#include "core/cuda/matmul_library.h"
#include "core/cuda/staging.h"
#include "core/device.h"

namespace convoy {

CudaBackend::CudaBackend(NumericsMode mode, int device, Deterministic deterministic)
    : mode_(mode), device_(device) {
  CUDA_CHECK(cudaSetDevice(device));
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  workspace_ = std::make_unique<cuda::Workspace>(stream_);
  staging_ = std::make_unique<cuda::Staging>(stream_);
  arrivals_ = std::make_unique<cuda::Arrivals>(stream_);
  squares_ = std::make_unique<cuda::PieceTable>(stream_);
  updates_ = std::make_unique<cuda::PieceTable>(stream_);
  matmul_ = std::make_unique<cuda::MatmulLibrary>(stream_);
  flash_ = cuda::make_flash_attention(stream_, *workspace_, deterministic);
}

CudaBackend::~CudaBackend() {
  cudaStreamSynchronize(stream_);
  for (auto& [key, frequencies] : frequencies_) cudaFree(frequencies);
  flash_.reset();
  matmul_.reset();
  squares_.reset();
  updates_.reset();
  arrivals_.reset();
  staging_.reset();
  workspace_.reset();
  cudaStreamDestroy(stream_);
}

void CudaBackend::matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
                         Accumulate accumulate) {
  if (c.size() == 0) return;
  const std::int64_t depth = transpose_a == Transpose::yes ? a.rows() : a.cols();
  if (depth == 0) {
    if (accumulate == Accumulate::no) fill(c, 0);
    return;
  }
  if (mode_ == NumericsMode::fast && matmul_->run(c, a, transpose_a, b, transpose_b, accumulate)) {
    return;
  }
  cuda::fixed_order_matmul(stream_, c, a, transpose_a, b, transpose_b, accumulate);
}

void CudaBackend::matmul_add(Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                             Transpose transpose_b, Tensor addend) {
  if (c.size() == 0) return;
  const std::int64_t depth = transpose_a == Transpose::yes ? a.rows() : a.cols();
  if (depth > 0 && mode_ == NumericsMode::fast &&
      matmul_->run(c, a, transpose_a, b, transpose_b, Accumulate::no, addend)) {
    return;
  }
  Backend::matmul_add(c, a, transpose_a, b, transpose_b, addend);
}

void CudaBackend::use_matmul_choices(const std::shared_ptr<MatmulChoices>& choices,
                                     MeasureMatmuls measure) {
  matmul_->use(choices, measure, cuda_device_info(device_).name);
}

namespace {

struct Event {
  cudaEvent_t handle = nullptr;
  Event() { CUDA_CHECK(cudaEventCreate(&handle)); }
  ~Event() { cudaEventDestroy(handle); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

}  // namespace

// By events on the stream; several runs between two events where one is short, so that the host's
// launches are hidden behind the device's work.
double CudaBackend::seconds_of(int repeats, const std::function<void()>& body) {
  constexpr double kLeast = 2e-3;  // seconds between two events
  Event start, stop;
  const auto timed = [&](int runs) {
    CUDA_CHECK(cudaEventRecord(start.handle, stream_));
    for (int i = 0; i < runs; ++i) body();
    CUDA_CHECK(cudaEventRecord(stop.handle, stream_));
    CUDA_CHECK(cudaEventSynchronize(stop.handle));
    float milliseconds = 0;
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.handle, stop.handle));
    return static_cast<double>(milliseconds) * 1e-3 / runs;
  };
  timed(1);
  const double first = std::max(timed(1), 1e-6);
  const int runs = static_cast<int>(std::clamp(kLeast / first, 1.0, 100.0));
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) seconds.push_back(timed(runs));
  const auto middle = seconds.begin() + repeats / 2;
  std::nth_element(seconds.begin(), middle, seconds.end());
  return *middle;
}

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

namespace {

std::string version_text(int version) {  // 13000 -> "13.0"
  return concat(version / 1000, '.', version % 1000 / 10);
}

std::string uuid_text(const cudaUUID_t& uuid) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    const auto byte = static_cast<unsigned char>(uuid.bytes[i]);
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

CudaDeviceInfo cuda_device_info(int device) {
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  int driver = 0, runtime = 0;
  CUDA_CHECK(cudaDriverGetVersion(&driver));
  CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
  return {properties.name, uuid_text(properties.uuid),
          concat("CUDA ", version_text(runtime), ", driver ", version_text(driver), ", cuBLASLt ",
                 cublasLtGetVersion(), ", flash attention: ", cuda::flash_attention_library()),
          static_cast<double>(properties.totalGlobalMem)};
}

double cuda_memory_taken(int device) {
  CUDA_CHECK(cudaSetDevice(device));
  std::size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<double>(total - free);
}

std::unique_ptr<Backend> make_cuda_backend(NumericsMode mode, int device,
                                           Deterministic deterministic) {
  const int count = cuda_device_count();
  if (device < 0 || device >= count) {
    throw Error(concat("there is no GPU ", device, " here (", count,
                       " found); use train.device = \"cpu\", or look at nvidia-smi"));
  }
  return std::make_unique<CudaBackend>(mode, device, deterministic);
}

}  // namespace convoy
