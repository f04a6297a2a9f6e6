#include <algorithm>
#include <tuple>

#include "parallel/schedule/passes.h"

namespace convoy {
namespace {

// An action at a time; a transfer stands for both of its ends.
struct Event {
  double time;     // a compute action's start; the end of what produced a transfer's data
  bool transfers;  // goes first at equal times: it may be what a compute action starts with
  int rank;
  Action action;
};

}  // namespace

Schedule add_transfers(const Schedule& compute, const Costs& costs) {
  const Timeline timeline = simulate(compute, costs);
  std::vector<Event> events;
  for (int rank = 0; rank < compute.shape.ranks; ++rank) {
    for (const TimedAction& timed : timeline.compute[rank]) {
      events.push_back({timed.start, false, rank, timed.action});
    }
    for (const TimedAction& timed : timeline.sends[rank]) {
      events.push_back({timed.start, true, rank, timed.action});
    }
  }
  std::stable_sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::make_tuple(a.time, !a.transfers) < std::make_tuple(b.time, !b.transfers);
  });
  Schedule result{compute.shape, {}};
  result.actions.resize(compute.actions.size());
  for (const Event& event : events) {
    result.actions[event.rank].push_back(event.action);
    if (!event.transfers) continue;
    const Action receive = counterpart(event.action);
    result.actions[compute.shape.rank_of(receive.stage)].push_back(receive);
  }
  return result;
}

}  // namespace convoy
