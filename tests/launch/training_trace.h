// Training without files, for comparisons: what a run computes, as whole tensors under their global
// names, in f64 whatever the run's dtype is.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launch/config.h"
#include "parallel/communicator.h"

namespace convoy::test {

using WholeTensors = std::map<std::string, std::vector<double>>;  // row-major

struct TrainingTrace {
  std::vector<double> losses, norms;    // of each step
  std::vector<WholeTensors> gradients;  // of the first steps, after all sums
  WholeTensors weights;                 // at the end
};

struct TraceOptions {
  std::int64_t gradient_steps = 0;  // of so many steps the gradients are kept
  // Every initial weight is moved to a neighbouring number of its dtype, up or down as drawn from
  // this seed.
  std::optional<std::uint64_t> moved_by_an_ulp = {};
};

// Trains config.train.steps steps of the first training file at the configured learning rate.
// Collective over `world`; the trace is the same on every rank.
TrainingTrace trace_training(const RunConfig& config, Communicator& world,
                             const TraceOptions& options);
// On config's ranks as threads.
TrainingTrace trace_on_threads(const RunConfig& config, int ranks, const TraceOptions& options);

double norm_of(const std::vector<double>& values);
double norm_of(const WholeTensors& tensors);

// The first tensor whose difference has a norm above `bound` of its own plus a floor; none where
// all agree. A gradient that is zero but for rounding (that of a key where a window has one
// position) has no digits to compare: a few units of rounding of the largest terms that cancelled
// are allowed, and those are no larger than all tensors together. A bound of 0 asks for every bit.
std::optional<std::string> difference(const WholeTensors& many, const WholeTensors& one,
                                      double bound, DType dtype = DType::f64);
// The first step whose values differ by more than `bound` of the value.
std::optional<std::string> difference(const std::vector<double>& many,
                                      const std::vector<double>& one, double bound);

}  // namespace convoy::test
