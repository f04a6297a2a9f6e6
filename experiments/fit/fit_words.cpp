#include "experiments/fit/fit_words.h"

#include <fmt/format.h>

#include <cmath>

#include "experiments/text_format.h"

namespace convoy {

std::string interval_text(const std::optional<Interval>& interval, int decimals) {
  if (!interval) return "-";
  return fixed(interval->low, decimals) + " .. " + fixed(interval->high, decimals);
}

std::string advantage_text(const Advantage& advantage) {
  if (!std::isfinite(advantage.estimate)) return "none: " + advantage.note;
  if (!advantage.interval)
    return fmt::format("{:.3f} x{}{}", advantage.estimate, advantage.note.empty() ? "" : ", ",
                       advantage.note);
  return fmt::format("{:.3f} x (95 %: {})", advantage.estimate,
                     interval_text(advantage.interval, 3));
}

std::string scale_text(const ScaleTest& test) {
  if (!std::isfinite(test.slope)) return "not tested: " + test.note;
  const bool changes = test.p < 0.05;
  return fmt::format("{} (d ln M / d ln C = {:+.4f}, 95 %: {}, p = {:.2g})",
                     changes ? "M changes with scale, so no single number holds"
                             : "no sign that M changes with scale",
                     test.slope, interval_text(test.interval, 4), test.p);
}

std::string percent(double value) {
  return std::isfinite(value) ? fmt::format("{:+.2f} %", 100 * value) : "-";
}

}  // namespace convoy
