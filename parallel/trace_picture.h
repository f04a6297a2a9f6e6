// A picture of what ranks did: for each rank a lane of compute and one of communication.
#pragma once

#include <string>
#include <vector>

#include "core/trace.h"

namespace convoy {

struct TracePanel {
  std::string caption;
  std::vector<Trace> ranks;
};

// SVG; time on x, the same for all panels, one below the other. A file of its own, on a light
// ground that reads on light and dark pages.
std::string svg_trace(const std::string& title, const std::vector<TracePanel>& panels);

}  // namespace convoy
