#include "experiments/sweep_report/sections.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/text_format.h"

namespace convoy {

std::string arm_name(const std::string& arm) { return arm.empty() ? "all runs" : arm; }

std::size_t colour_of(const SweepAnalysis& analysis, const std::string& arm) {
  const auto at = std::find(analysis.arms.begin(), analysis.arms.end(), arm);
  return static_cast<std::size_t>(at - analysis.arms.begin());
}

std::string compact(double value) {
  if (!std::isfinite(value)) return "-";
  if (value >= 1e12) return scientific(value);
  if (value >= 1e9) return fmt::format("{:.3g}B", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.3g}M", value / 1e6);
  return value >= 1e4 ? fmt::format("{:.3g}k", value / 1e3) : fmt::format("{:.0f}", value);
}

}  // namespace convoy
