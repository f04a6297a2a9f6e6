// The report as one HTML page that needs nothing else: no network, no scripts, pictures inline.
#pragma once

#include <string>

#include "experiments/comparison.h"

namespace convoy {

std::string report_html(const Comparison& comparison);

}  // namespace convoy
