#include "parallel/schedule/simulate.h"

#include <algorithm>
#include <optional>
#include <string>

#include "core/error.h"
#include "parallel/schedule/text.h"

namespace convoy {
namespace {

constexpr double kNotYet = -1;

class Simulation {
 public:
  Simulation(const Schedule& schedule, const Costs& costs)
      : schedule_(schedule), shape_(schedule.shape), costs_(costs) {
    const auto cells = static_cast<std::size_t>(shape_.stages() * shape_.micro_batches);
    forward_end_.assign(cells, kNotYet);
    gradient_end_.assign(cells, kNotYet);
    const auto ranks = static_cast<std::size_t>(shape_.ranks);
    next_.resize(ranks);
    free_.resize(ranks);
    timeline_.shape = shape_;
    timeline_.compute.resize(ranks);
    timeline_.sends.resize(ranks);
  }

  Timeline run() {
    for (bool progress = true; progress;) {
      progress = false;
      for (int rank = 0; rank < shape_.ranks; ++rank) {
        while (step(rank)) progress = true;
      }
    }
    check_finished();
    for (const auto& list : timeline_.compute) {
      for (const TimedAction& timed : list) timeline_.ideal += costs_.of(timed.action);
    }
    timeline_.ideal /= shape_.ranks;
    timeline_.makespan = *std::max_element(free_.begin(), free_.end());
    return std::move(timeline_);
  }

 private:
  std::size_t cell(int stage, int micro_batch) const {
    CHECK(stage >= 0 && stage < shape_.stages() && micro_batch >= 0 &&
              micro_batch < shape_.micro_batches,
          "stage ", stage, " of ", shape_.stages(), ", micro-batch ", micro_batch, " of ",
          shape_.micro_batches);
    return static_cast<std::size_t>(stage) * shape_.micro_batches + micro_batch;
  }

  // Runs the rank's next compute action; false where its data is not there yet or none is left.
  bool step(int rank) {
    const auto& list = schedule_.actions[rank];
    auto& next = next_[rank];
    while (next < list.size() && !is_compute(list[next].op)) ++next;
    if (next == list.size()) return false;
    const std::optional<double> ready = arrival(list[next]);
    if (!ready) return false;
    const double start = std::max(free_[rank], *ready);
    finish(rank, {list[next], start, start + costs_.of(list[next])});
    ++next;
    return true;
  }

  // When what the action needs of other stages is on its rank.
  std::optional<double> arrival(const Action& a) const {
    if (a.op == Op::forward) {
      if (a.stage == 0) return 0;
      return arrival_of(forward_end_[cell(a.stage - 1, a.micro_batch)], a.stage - 1, a.stage);
    }
    // B, I and W need their own forward pass, W its own I; the order of the rank gives the time.
    if (a.op == Op::backward_weight) {
      return arrival_of(gradient_end_[cell(a.stage, a.micro_batch)], a.stage, a.stage);
    }
    if (forward_end_[cell(a.stage, a.micro_batch)] == kNotYet) return {};
    if (a.stage == shape_.stages() - 1) return 0;
    return arrival_of(gradient_end_[cell(a.stage + 1, a.micro_batch)], a.stage + 1, a.stage);
  }

  std::optional<double> arrival_of(double end, int from, int to) const {
    if (end == kNotYet) return {};
    return end + (shape_.rank_of(from) == shape_.rank_of(to) ? 0 : costs_.transfer);
  }

  void finish(int rank, const TimedAction& timed) {
    const auto [a, start, end] = timed;
    free_[rank] = end;
    timeline_.compute[rank].push_back(timed);
    if (a.op == Op::backward_weight) return;
    const bool down = a.op == Op::forward;
    (down ? forward_end_ : gradient_end_)[cell(a.stage, a.micro_batch)] = end;
    const int to = a.stage + (down ? 1 : -1);
    if (to < 0 || to == shape_.stages() || shape_.rank_of(to) == rank) return;
    const Op send = down ? Op::send_activation : Op::send_gradient;
    timeline_.sends[rank].push_back({{send, a.stage, a.micro_batch}, end, end + costs_.transfer});
  }

  void check_finished() const {
    std::string stuck;
    for (int rank = 0; rank < shape_.ranks; ++rank) {
      const auto& list = schedule_.actions[rank];
      const auto next = next_[rank];
      if (next == list.size()) continue;
      stuck += concat(stuck.empty() ? "" : "; ", "rank ", rank, " waits for ever for the data of ",
                      to_text(list[next]), ", action ", next, " of its ", list.size());
    }
    if (!stuck.empty()) throw Error("the schedule cannot run: " + stuck);
  }

  const Schedule& schedule_;
  const PipelineShape& shape_;
  const Costs& costs_;
  std::vector<double> forward_end_, gradient_end_;  // [stage * micro_batches + micro_batch]
  std::vector<std::size_t> next_;                   // [rank]
  std::vector<double> free_;                        // [rank]
  Timeline timeline_;
};

}  // namespace

double Costs::of(const Action& compute) const {
  const double scale = stage_scale.empty() ? 1 : stage_scale.at(compute.stage);
  switch (compute.op) {
    case Op::forward: return scale * forward;
    case Op::backward: return scale * (backward_input + backward_weight);
    case Op::backward_input: return scale * backward_input;
    case Op::backward_weight: return scale * backward_weight;
    default: break;
  }
  CHECK(is_compute(compute.op), "a cost is asked for ", to_text(compute));
  return 0;
}

double Timeline::span_bubble() const {
  double most = 0;
  for (const auto& list : compute) {
    if (list.empty()) continue;
    double idle = list.back().end - list.front().start;
    for (const TimedAction& timed : list) idle -= timed.end - timed.start;
    most = std::max(most, idle);
  }
  return most / ideal;
}

Timeline simulate(const Schedule& schedule, const Costs& costs) {
  CHECK(schedule.actions.size() == static_cast<std::size_t>(schedule.shape.ranks),
        schedule.actions.size(), " lists of actions for ", schedule.shape.ranks, " ranks");
  CHECK(costs.forward > 0 && costs.backward_input > 0 && costs.backward_weight > 0 &&
            costs.transfer >= 0,
        "costs must be positive");
  CHECK(costs.stage_scale.empty() ||
            costs.stage_scale.size() == static_cast<std::size_t>(schedule.shape.stages()),
        costs.stage_scale.size(), " scales for ", schedule.shape.stages(), " stages");
  return Simulation(schedule, costs).run();
}

}  // namespace convoy
