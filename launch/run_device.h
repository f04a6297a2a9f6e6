// The device of a run: train.device = "auto" takes a GPU where the program can use one.
#pragma once

#include <memory>
#include <string>

#include "core/backend.h"
#include "core/device.h"
#include "launch/config.h"

namespace convoy {

DeviceKind device_of_run(const RunConfig& config);
std::unique_ptr<Backend> make_backend(DeviceKind device, NumericsMode mode,
                                      Deterministic deterministic = Deterministic::yes,
                                      int local_rank = 0);
// The ranks of a host take its GPUs in turn.
std::unique_ptr<Backend> backend_of_run(const RunConfig& config, int local_rank = 0);
std::string describe_device(const Backend& backend);  // "NVIDIA H100 ... (GPU-...)", or the CPU

// What a run records of the device it ran on.
struct RunHardware {
  std::string device;       // "cpu", or the card's name: "NVIDIA H100 80GB HBM3"
  std::string description;  // describe_device
  double peak_flops_per_s;  // of one device, dense, in the run's precision; 0: not known
};
RunHardware hardware_of_run(const Backend& backend, DType dtype);

// For verbs that only run a model: a CPU runs a bf16 model in f32.
DType dtype_to_run(const RunConfig& config, DeviceKind device);

}  // namespace convoy
