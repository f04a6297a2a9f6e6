// Measurements: single operations beside a copy of the same bytes and the matmul rate, and whole
// training steps. Times are medians over random inputs; on a GPU by events on its stream.
#pragma once

#include <string>
#include <vector>

#include "core/matmul_choices.h"
#include "launch/config.h"

namespace convoy {

struct BenchSetup {
  DeviceKind device;
  DType dtype;  // of activations
  std::int64_t sequences, length, channels;
  int repeats;
};

struct OpMeasurement {
  std::string name, shape;
  double seconds;  // median
  double bytes;    // read and written, each once
  double flops;
  double copy_seconds;  // of the device's own copy of the same bytes

  double copy_fraction() const { return copy_seconds / seconds; }
};

// What the device can do at best: a large copy (bytes read and written a second) and a large
// matmul.
struct Ceilings {
  double copy_bytes_per_s, matmul_flops_per_s;
};

struct StepMeasurement {
  double seconds, tokens_per_s, flops_per_s;
  double loss;
  double activation_bytes;  // of micro-batches and workspace, as planned
  double predicted_bytes;   // of all memory, by the planner
  double measured_bytes;    // of the device, once the steps have run; NaN on a CPU
  bool replayed;            // the measured steps were replays of a recorded one
  std::string recording;    // of what, or why not; empty where the device records nothing
  double replay_seconds;    // of the recording alone, over and over; 0 without
};

std::vector<OpMeasurement> bench_operations(const BenchSetup& setup);
Ceilings measure_ceilings(DeviceKind device, DType dtype);
// Optimizer steps of one micro-batch of random tokens, the update included.
StepMeasurement bench_step(const RunConfig& run, int steps);
// The fastest algorithm for each matmul of one such step. Throws on a CPU, which has no choice.
MatmulChoices bench_matmuls(const RunConfig& config);

}  // namespace convoy
