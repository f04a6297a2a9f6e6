// Pictures of a timeline: a grid as SVG and a trace for chrome://tracing or ui.perfetto.dev.
#pragma once

#include <string>

#include "parallel/schedule/simulate.h"

namespace convoy {

// Time on x, ranks on y, colour by operation, shade by virtual stage, the micro-batch in each cell.
// A file of its own, on a light ground that reads on light and dark pages.
std::string svg_grid(const Timeline& timeline);

// JSON; each rank is a process with a lane for compute and one for what it sends.
std::string chrome_trace(const Timeline& timeline, double microseconds_per_unit = 1000);

}  // namespace convoy
