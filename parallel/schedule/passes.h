// Passes that complete a schedule of compute actions. They are applied in this order:
//   add_gradient_reductions(add_weight_gathers(add_transfers(make_schedule(shape))))
#pragma once

#include "parallel/schedule/simulate.h"

namespace convoy {

// Adds a send and a receive wherever data passes from one rank to another. All transfers stand in
// one global order, that in which their data becomes ready by `costs`, and each rank's list is its
// part of that order. So even sends that block until they are received cannot deadlock: the first
// unfinished action of the global order can always run. (A receive placed just before its use
// deadlocks most schedules.) Both ends see the messages of a pair in one order.
Schedule add_transfers(const Schedule& compute, const Costs& costs = {});

struct GatherOptions {
  int prefetch = 1;  // a gather starts this many compute actions before the first use
  // Weights that are not used for more than this many compute actions are released in between and
  // gathered again; negative: kept from a stage's first use in the step to its last.
  int keep = -1;
};

// ZeRO-3: gathers a stage's weights before their use and releases them after it. W counts as a use:
// a convolution's backward_weight reads its filters.
Schedule add_weight_gathers(const Schedule& schedule, const GatherOptions& options = {});

// Adds the reduction of a stage's weight gradients right after its last B or W of the step.
Schedule add_gradient_reductions(const Schedule& schedule);

}  // namespace convoy
