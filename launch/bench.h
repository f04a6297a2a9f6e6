// Measurements: single operations beside a copy of the same bytes and the matmul rate, and whole
// training steps. Times are medians over fresh random inputs.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "launch/config.h"

namespace convoy {

struct OpMeasurement {
  std::string name, shape;
  double seconds;  // median
  double bytes;    // read and written, each once
  double flops;
  double copy_fraction;  // of the speed at which a copy moves the same bytes
};

struct StepMeasurement {
  double seconds, tokens_per_s, flops_per_s;
  double loss;
};

double median_seconds(int repeats, const std::function<void()>& run);

std::vector<OpMeasurement> bench_operations(std::int64_t sequences, std::int64_t length,
                                            std::int64_t channels, int repeats);
// Optimizer steps of one micro-batch of random tokens, the update included.
StepMeasurement bench_step(const RunConfig& config, int steps);

}  // namespace convoy
