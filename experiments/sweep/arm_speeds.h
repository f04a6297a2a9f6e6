// How fast one device trains each arm of a manifest at each size: whole steps of random tokens, the
// update included, one model after the other. What is compared shares its conditions, however the
// runs of the sweep itself are spread over time and machines.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "experiments/manifest/sweep_plan.h"

namespace convoy {

struct ArmSpeed {
  std::string arch, size;
  std::int64_t sequences = 0, length = 0;  // of a step
  double tokens_per_s = 0, flops_per_s = 0;
};

struct TimingOptions {
  int rounds = 3;   // over all arms and sizes; the fastest counts, as disturbances only slow
  int repeats = 9;  // steps of which the median counts
  std::int64_t sequences = 0;  // of a step; 0: the manifest's micro-batch
};

struct ArmSpeeds {
  std::string device = {};  // "NVIDIA H200 (GPU-...)"
  std::vector<ArmSpeed> speeds = {};
};

// What is known so far goes to `after_round`, so that a measurement cut short keeps its rounds.
using AfterRound = std::function<void(const ArmSpeeds& so_far, int rounds_done)>;
ArmSpeeds time_arms(const SweepPlan& plan, const TimingOptions& options,
                    const AfterRound& after_round);

// arch,size,sequences,length,tokens_per_s,flops_per_s,device: what `convoy compare --speeds` reads.
std::string speeds_csv(const ArmSpeeds& measured);

// For people: tokens/s, and the ratio of FLOP/s to `reference` at the same size.
std::string speeds_table(const ArmSpeeds& measured, const std::string& reference);

}  // namespace convoy
