// When each compute action of a schedule would run if the ranks did nothing but follow it: an
// action starts when its rank is free and its data has arrived. Transfers take `transfer` and never
// contend; the actions of a schedule that are not compute are ignored.
#pragma once

#include <vector>

#include "parallel/schedule/schedule.h"

namespace convoy {

// In any unit of time, all but `transfer` positive; B costs I + W. Of one virtual stage.
struct Costs {
  double forward = 1, backward_input = 1, backward_weight = 1;
  double transfer = 0;                   // of one activation or gradient between two ranks
  std::vector<double> stage_scale = {};  // [stage], for stages of unequal size; empty: all 1

  double of(const Action& compute) const;
};

struct TimedAction {
  Action action;
  double start, end;
};

struct Timeline {
  PipelineShape shape;
  std::vector<std::vector<TimedAction>> compute;  // [rank][order]
  std::vector<std::vector<TimedAction>> sends;    // [rank], by start; those between two ranks
  double makespan = 0;
  double ideal = 0;  // all work / ranks: what perfect balance without waiting would take

  // Both relative to the ideal time.
  double step_bubble() const { return makespan / ideal - 1; }
  double span_bubble() const;  // idle time between a rank's first and last action; largest rank's
};

// Throws Error where the order of a rank's actions can never be run.
Timeline simulate(const Schedule& schedule, const Costs& costs = {});

}  // namespace convoy
