#include "experiments/fit/arm_cost.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace convoy {
namespace {

// Seconds of all its devices together; NaN where the table does not say.
double device_seconds(const RunRow& run) {
  if (std::isfinite(run.device_hours)) return 3600 * run.device_hours;
  return run.wall_s * (std::isfinite(run.ranks) ? run.ranks : 1);
}

struct Rates {
  double log_flops_per_token = 0;  // means over the runs of one size
  double log_flops_per_second = 0;
};

std::map<std::string, Rates> rates_by_size(const std::vector<RunRow>& runs) {
  std::map<std::string, std::vector<const RunRow*>> groups;
  for (const RunRow& run : runs) groups[run.size].push_back(&run);
  std::map<std::string, Rates> rates;
  for (const auto& [size, group] : groups)
    for (const RunRow* run : group) {
      const double share = 1 / static_cast<double>(group.size());
      rates[size].log_flops_per_token += share * std::log(run->C / run->D);
      rates[size].log_flops_per_second += share * std::log(run->C / device_seconds(*run));
    }
  return rates;
}

bool of_one_device(const std::vector<RunRow>& reference, const std::vector<RunRow>& arm) {
  std::set<std::string> devices;
  for (const auto* runs : {&reference, &arm})
    for (const RunRow& run : *runs) devices.insert(run.device);
  return devices.size() == 1;
}

template <class Value>
std::vector<double> known(const std::vector<SizeCost>& sizes, const Value& value) {
  std::vector<double> values;
  for (const SizeCost& size : sizes)
    if (std::isfinite(value(size))) values.push_back(value(size));
  return values;
}

}  // namespace

ArmCost cost_of(const std::vector<RunRow>& reference, const std::vector<RunRow>& arm,
                FlopsColumn flops, const std::optional<Speeds>& measured) {
  ArmCost cost;
  const auto of_reference = rates_by_size(reference);
  const bool one_device = of_one_device(reference, arm);
  for (const auto& [size, rates] : rates_by_size(arm)) {
    const auto other = of_reference.find(size);
    if (other == of_reference.end()) continue;
    SizeCost at{.size = size};
    const double log_ratio = rates.log_flops_per_token - other->second.log_flops_per_token;
    if (flops == FlopsColumn::present) at.overhead = std::expm1(log_ratio);
    if (measured)
      at.speed_ratio = measured->ratio(arm.front().arch, reference.front().arch, size);
    else if (one_device)
      at.speed_ratio = std::exp(rates.log_flops_per_second - other->second.log_flops_per_second);
    cost.sizes.push_back(at);
  }
  const auto overheads =
      known(cost.sizes, [](const SizeCost& s) { return std::log1p(s.overhead); });
  const auto speeds = known(cost.sizes, [](const SizeCost& s) { return std::log(s.speed_ratio); });
  const std::string no_size = "the arms have no size in common";
  if (!overheads.empty())
    cost.mean_overhead = std::expm1(estimate(overheads).mean);
  else
    cost.no_overhead = flops == FlopsColumn::absent ? "the table has no FLOPs, and 6 N D sees no "
                                                      "overhead"
                       : cost.sizes.empty()         ? no_size
                                                    : "tokens are not known";
  if (!speeds.empty())
    cost.log_speed_ratio = estimate(speeds);
  else
    cost.no_speed = cost.sizes.empty() ? no_size
                    : measured         ? measured->source + " has no size of both arms"
                    : one_device       ? "the table has no wall_s or device_hours"
                                       : "the runs are from several devices";
  return cost;
}

}  // namespace convoy
