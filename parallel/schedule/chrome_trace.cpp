#include <fmt/format.h>

#include <array>
#include <iterator>
#include <string_view>

#include "parallel/schedule/picture.h"
#include "parallel/schedule/text.h"

namespace convoy {
namespace {

constexpr std::array<std::string_view, 2> kLanes = {"compute", "send"};

}  // namespace

// The format is Google's "Trace Event Format": complete events (ph X) with times in microseconds,
// metadata events (ph M) for names.
std::string chrome_trace(const Timeline& timeline, double microseconds_per_unit) {
  std::string out = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
  const char* separator = "\n";
  const auto put = [&](const std::string& event) {
    out += separator + event;
    separator = ",\n";
  };
  for (std::size_t rank = 0; rank < timeline.compute.size(); ++rank) {
    put(fmt::format(R"({{"ph": "M", "name": "process_name", "pid": {0}, )"
                    R"("args": {{"name": "rank {0}"}}}})",
                    rank));
    for (std::size_t lane = 0; lane < kLanes.size(); ++lane) {
      put(fmt::format(R"({{"ph": "M", "name": "thread_name", "pid": {}, "tid": {}, )"
                      R"("args": {{"name": "{}"}}}})",
                      rank, lane, kLanes[lane]));
      for (const TimedAction& timed : lane == 0 ? timeline.compute[rank] : timeline.sends[rank]) {
        put(fmt::format(R"({{"ph": "X", "name": "{}", "cat": "{}", "pid": {}, "tid": {}, )"
                        R"("ts": {:.3f}, "dur": {:.3f}}})",
                        to_text(timed.action), kLanes[lane], rank, lane,
                        microseconds_per_unit * timed.start,
                        microseconds_per_unit * (timed.end - timed.start)));
      }
    }
  }
  return out + "\n]}\n";
}

}  // namespace convoy
