#include "launch/run_device.h"

#include <algorithm>
#include <array>

#include "core/cpu/cpu_backend.h"
#include "core/matmul_choices.h"
#include "launch/environment.h"

namespace convoy {
namespace {

// Dense bf16 FLOP/s by NVIDIA's data sheets; 0 for a card that is not listed.
double dense_bf16_peak(const std::string& card) {
  struct Card {
    const char* name;
    double flops_per_s;
  };
  constexpr std::array<Card, 4> kCards = {
      {{"H200", 989e12}, {"H100 PCIe", 756e12}, {"H100", 989e12}, {"A100", 312e12}}};
  for (const Card& known : kCards) {
    if (card.find(known.name) != std::string::npos) return known.flops_per_s;
  }
  return 0;
}

}  // namespace

DeviceKind device_of_run(const RunConfig& config) {
  const std::string& wanted = config.train.device;
  if (wanted == "cuda") return DeviceKind::cuda;
  return wanted == "auto" && cuda_device_count() > 0 ? DeviceKind::cuda : DeviceKind::cpu;
}

std::unique_ptr<Backend> make_backend(DeviceKind device, NumericsMode mode,
                                      Deterministic deterministic, int local_rank) {
  if (device == DeviceKind::cpu) return make_cpu_backend(mode);
  return make_cuda_backend(mode, local_rank % std::max(cuda_device_count(), 1), deterministic);
}

std::unique_ptr<Backend> backend_of_run(const RunConfig& config, int local_rank) {
  auto backend =
      make_backend(device_of_run(config), config.numerics,
                   config.deterministic ? Deterministic::yes : Deterministic::no, local_rank);
  if (!config.matmul_table.empty()) {
    backend->use_matmul_choices(
        std::make_shared<MatmulChoices>(MatmulChoices::read(config.matmul_table)),
        MeasureMatmuls::no);
  }
  return backend;
}

std::string describe_device(const Backend& backend) {
  if (backend.device() == DeviceKind::cpu) {
    return hardware_name();
  }
  const CudaDeviceInfo info = cuda_device_info(0);
  return concat(info.name, " (", info.uuid, "), ", info.libraries);
}

RunHardware hardware_of_run(const Backend& backend, DType dtype) {
  if (backend.device() == DeviceKind::cpu) return {"cpu", describe_device(backend), 0};
  const std::string name = cuda_device_info(0).name;
  return {name, describe_device(backend), dtype == DType::bf16 ? dense_bf16_peak(name) : 0};
}

DType dtype_to_run(const RunConfig& config, DeviceKind device) {
  const DType dtype = dtype_of_run(config);
  return dtype == DType::bf16 && device == DeviceKind::cpu ? DType::f32 : dtype;
}

}  // namespace convoy
