#include "parallel/chrome_trace.h"

#include <array>
#include <string_view>

#include "parallel/schedule/picture.h"
#include "parallel/schedule/text.h"

namespace convoy {
namespace {

constexpr std::array<std::string_view, 2> kLanes = {"compute", "send"};

}  // namespace

std::string chrome_trace(const Timeline& timeline, double microseconds_per_unit) {
  ChromeTrace trace;
  for (std::size_t i = 0; i < timeline.compute.size(); ++i) {
    const int rank = static_cast<int>(i);
    trace.process(rank);
    for (std::size_t lane = 0; lane < kLanes.size(); ++lane) {
      trace.lane(rank, static_cast<int>(lane), kLanes[lane]);
      for (const TimedAction& timed : lane == 0 ? timeline.compute[i] : timeline.sends[i]) {
        trace.span(rank, static_cast<int>(lane), kLanes[lane], to_text(timed.action),
                   microseconds_per_unit * timed.start,
                   microseconds_per_unit * (timed.end - timed.start));
      }
    }
  }
  return ChromeTrace::document(trace.events());
}

}  // namespace convoy
