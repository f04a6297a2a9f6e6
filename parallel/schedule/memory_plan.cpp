#include "parallel/schedule/memory_plan.h"

#include <algorithm>
#include <set>

#include "core/error.h"

namespace convoy {

// `begins` says for which stage and micro-batch an action starts a life, if it does.
template <class Begins>
void MemoryPlan::assign(Assignment& assignment, const Schedule& schedule, Begins&& begins) {
  const auto stages = static_cast<std::size_t>(schedule.shape.stages());
  assignment.counts.assign(stages, 0);
  assignment.numbers.assign(stages * micro_batches_, -1);
  for (const auto& list : schedule.actions) {
    std::vector<std::set<int>> free(stages);
    for (const Action& action : list) {
      if (const int stage = begins(action); stage >= 0) {
        int& number = assignment.numbers[stage * micro_batches_ + action.micro_batch];
        CHECK(number < 0, "stage ", stage, " takes micro-batch ", action.micro_batch, " twice");
        if (free[stage].empty()) free[stage].insert(assignment.counts[stage]++);
        number = free[stage].extract(free[stage].begin()).value();
      }
      if (ends_slot(action.op)) {
        const int number = assignment.numbers[action.stage * micro_batches_ + action.micro_batch];
        if (number >= 0) free[action.stage].insert(number);
      }
    }
  }
}

MemoryPlan::MemoryPlan(const Schedule& schedule) : micro_batches_(schedule.shape.micro_batches) {
  const PipelineShape& shape = schedule.shape;
  // The stage that gets what `action` of `stage` gives, where it is on the same rank.
  const auto same_rank = [&](int stage, int to) {
    return to >= 0 && to < shape.stages() && shape.rank_of(to) == shape.rank_of(stage) ? to : -1;
  };
  assign(slots_, schedule, [](const Action& a) { return a.op == Op::forward ? a.stage : -1; });
  assign(activations_, schedule, [&](const Action& a) {
    if (a.op == Op::receive_activation) return a.stage;
    return a.op == Op::forward ? same_rank(a.stage, a.stage + 1) : -1;
  });
  assign(gradients_, schedule, [&](const Action& a) {
    if (a.op == Op::receive_gradient) return a.stage;
    return gives_input_gradient(a.op) ? same_rank(a.stage, a.stage - 1) : -1;
  });
  count_peaks(schedule);
}

void MemoryPlan::count_peaks(const Schedule& schedule) {
  for (const auto& list : schedule.actions) {
    int alive = 0, peak = 0;
    for (const Action& action : list) {
      if (action.op == Op::forward) peak = std::max(peak, ++alive);
      if (ends_slot(action.op)) --alive;
    }
    peaks_.push_back(peak);
  }
}

int MemoryPlan::number(const Assignment& assignment, int stage, int micro_batch) const {
  const int number = assignment.numbers.at(stage * micro_batches_ + micro_batch);
  CHECK(number >= 0, "stage ", stage, " has none for micro-batch ", micro_batch);
  return number;
}

}  // namespace convoy
