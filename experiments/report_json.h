// A comparison as JSON, for other programs.
#pragma once

#include <string>

#include "experiments/comparison.h"

namespace convoy {

// {"runs": [...], "arms": [...], "differences": [...], "excluded": [...]}, indented. What is
// unknown is null. Estimates are {"n", "mean", "sd", "low", "high"}, the last two at 95 %.
std::string report_json(const Comparison& comparison);

}  // namespace convoy
