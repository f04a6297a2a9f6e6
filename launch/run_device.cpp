#include "launch/run_device.h"

#include "core/cpu/cpu_backend.h"
#include "core/matmul_choices.h"
#include "launch/environment.h"

namespace convoy {

DeviceKind device_of_run(const RunConfig& config) {
  const std::string& wanted = config.train.device;
  if (wanted == "cuda") return DeviceKind::cuda;
  return wanted == "auto" && cuda_device_count() > 0 ? DeviceKind::cuda : DeviceKind::cpu;
}

std::unique_ptr<Backend> make_backend(DeviceKind device, NumericsMode mode,
                                      Deterministic deterministic) {
  return device == DeviceKind::cuda ? make_cuda_backend(mode, 0, deterministic)
                                    : make_cpu_backend(mode);
}

std::unique_ptr<Backend> backend_of_run(const RunConfig& config) {
  auto backend = make_backend(device_of_run(config), config.numerics,
                              config.deterministic ? Deterministic::yes : Deterministic::no);
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

DType dtype_to_run(const RunConfig& config, DeviceKind device) {
  const DType dtype = dtype_of_run(config);
  return dtype == DType::bf16 && device == DeviceKind::cpu ? DType::f32 : dtype;
}

}  // namespace convoy
