// What an arm costs beside the reference, size by size: FLOPs per token, and model FLOPs per second
// of one device, of the runs themselves or measured apart.
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/speeds.h"
#include "experiments/fit/table.h"
#include "experiments/statistics.h"

namespace convoy {

struct SizeCost {
  std::string size;
  // FLOPs per token of the arm over the reference's, minus 1; NaN where unknown.
  double overhead = std::numeric_limits<double>::quiet_NaN();
  // Model FLOP/s of a device, arm over reference; NaN where unknown. Not the ratio of tokens per
  // second, which would count the arm's extra FLOPs twice.
  double speed_ratio = std::numeric_limits<double>::quiet_NaN();
};

struct ArmCost {
  std::vector<SizeCost> sizes = {};  // those that both arms have
  std::string no_overhead = {};      // why it is not known
  std::string no_speed = {};
  double mean_overhead = std::numeric_limits<double>::quiet_NaN();  // of 1 + overhead, geometric
  Estimate log_speed_ratio = {};  // over the sizes; n is 0 where unknown
};

enum class FlopsColumn { present, absent };  // absent: C is 6 N D, which sees no overhead

// FLOP/s are those of `measured` where they are given, else those of the runs, which are comparable
// only where all ran on one kind of device.
ArmCost cost_of(const std::vector<RunRow>& reference, const std::vector<RunRow>& arm,
                FlopsColumn flops, const std::optional<Speeds>& measured = {});

}  // namespace convoy
