// The words of a fit, the same in the terminal and on the page.
#pragma once

#include <optional>
#include <string>

#include "experiments/fit/advantage.h"

namespace convoy {

std::string interval_text(const std::optional<Interval>& interval, int decimals);  // "-": none

// "1.330 x (95 %: 1.301 .. 1.360)", or "none: " and the reason.
std::string advantage_text(const Advantage& advantage);

std::string scale_text(const ScaleTest& test);

std::string percent(double value);  // 0.037 -> "+3.70 %"; not finite: "-"

}  // namespace convoy
