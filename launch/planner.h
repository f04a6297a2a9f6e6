// What a run will cost before it runs: parameters, FLOPs, memory of the rank that needs most, the
// pipeline's bubble, seconds a step.
#pragma once

#include <string>

#include "launch/config.h"
#include "models/accounting.h"

namespace convoy {

// Bytes of the rank that needs most. On a GPU operations need room while they run (workspace), and
// driver and libraries keep some for themselves (runtime).
struct RankBytes {
  double weights = 0, gradients = 0, optimizer = 0, activations = 0;
  double workspace = 0, runtime = 0;
  double total() const {
    return weights + gradients + optimizer + activations + workspace + runtime;
  }
};

struct DeviceSpec {
  std::string name;        // cpu | h100 | h200
  double memory_bytes;     // 0: not limited here
  double sustained_flops;  // model FLOPs a second that a good run reaches, an assumption
};

struct Plan {
  ParameterCounts parameters;
  FlopParts flops_per_token;
  RankBytes memory;
  std::int64_t steps = 0;   // 0: the configuration does not say how long
  double bubble = 0;        // of the pipeline: what a step takes longer than perfect balance
  double step_seconds = 0;  // estimated, without communication
  double total_flops = 0;
};

DeviceSpec device_spec(const std::string& name);
Plan make_plan(const RunConfig& config, int ranks, const DeviceSpec& device);

}  // namespace convoy
