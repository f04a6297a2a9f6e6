// zb-v: rank r owns stage r on the way down (chunk 0) and stage 2p - 1 - r on the way up (chunk 1).
// With F, I and W of a stage costing one tick each, the ranks choose tick by tick among what is
// ready, W last: it fills what would be idle. A rank holds at most 2p activations of a stage, as
// much as 1f1b's first rank. Which of F and I goes first is a rule; of two, the one that gives the
// shorter schedule is taken (their step bubbles differ only for few micro-batches).
#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "core/error.h"
#include "parallel/schedule/generate.h"

namespace convoy {
namespace {

struct Choice {
  Op op;
  int chunk;
};

constexpr Op kF = Op::forward, kI = Op::backward_input, kW = Op::backward_weight;

// While many micro-batches are still to come: what is deepest in the pipeline first.
constexpr std::array<Choice, 4> kSteady = {{{kI, 1}, {kF, 1}, {kI, 0}, {kF, 0}}};
// Once the last forward passes are on their way: what other ranks wait for first.
constexpr std::array<Choice, 4> kDrainManyMicroBatches = {{{kF, 0}, {kI, 0}, {kF, 1}, {kI, 1}}};
constexpr std::array<Choice, 4> kDrainFewMicroBatches = {{{kF, 1}, {kI, 0}, {kF, 0}, {kI, 1}}};
constexpr std::array<Choice, 2> kFill = {{{kW, 0}, {kW, 1}}};

class Planner {
 public:
  Planner(const PipelineShape& shape, std::span<const Choice> drain)
      : p_(shape.ranks), m_(shape.micro_batches), drain_(drain), ranks_(shape.ranks) {
    for (int rank = 0; rank < p_; ++rank) ranks_[rank].stages = {rank, 2 * p_ - 1 - rank};
    const auto cells = static_cast<std::size_t>(2 * p_ * m_);
    forward_done_.assign(cells, false);
    input_done_.assign(cells, false);
  }

  void run() {
    for (int left = 6 * m_ * p_; left > 0; ++ticks_) {
      const int before = left;
      std::vector<Action> taken;
      for (int rank = 0; rank < p_; ++rank) {
        if (const auto action = choose(rank)) {
          taken.push_back(*action);
          record(ranks_[rank], *action);
        }
      }
      left -= static_cast<int>(taken.size());
      for (const Action& action : taken) publish(action);  // others see it in the next tick
      CHECK(left < before, "no rank of zb-v can act in tick ", ticks_, ": ", p_, " ranks, ", m_,
            " micro-batches");
    }
  }

  // Shorter first: whole schedule, then the largest stretch that one rank is busy or waits in.
  std::array<int, 2> length() const {
    int stretch = 0;
    for (const Rank& rank : ranks_) stretch = std::max(stretch, rank.last - rank.first);
    return {ticks_, stretch};
  }

  ActionLists lists() const {
    ActionLists lists;
    for (const Rank& rank : ranks_) lists.push_back(rank.list);
    return lists;
  }

 private:
  struct Rank {
    std::array<int, 2> stages{};                         // of chunk 0 and 1
    std::array<int, 2> forwards{}, inputs{}, weights{};  // how many are done, by chunk
    std::vector<Action> list;
    int first = -1, last = 0;  // tick of the first action; tick after the last
    int live() const { return forwards[0] + forwards[1] - weights[0] - weights[1]; }
  };

  std::size_t cell(int stage, int micro_batch) const {
    return static_cast<std::size_t>(stage) * m_ + micro_batch;
  }

  std::optional<Action> choose(int index) const {
    const Rank& rank = ranks_[index];
    const bool draining = rank.forwards[0] >= m_ - (p_ - index);
    for (const Choice& choice : draining ? drain_ : std::span<const Choice>(kSteady)) {
      if (const auto action = ready(index, choice)) return action;
    }
    for (const Choice& choice : kFill) {
      if (const auto action = ready(index, choice)) return action;
    }
    return {};
  }

  // The next micro-batch of this kind, if its data and its memory are there.
  std::optional<Action> ready(int index, Choice choice) const {
    const auto [op, chunk] = choice;
    const Rank& rank = ranks_[index];
    const int stage = rank.stages[chunk];
    const int j = op == kF   ? rank.forwards[chunk]
                  : op == kI ? rank.inputs[chunk]
                             : rank.weights[chunk];
    if (j == m_) return {};
    bool possible = false;
    if (op == kF) {
      possible = (stage == 0 || forward_done_[cell(stage - 1, j)]) && has_room(index, chunk);
    } else if (op == kI) {
      possible = j < rank.forwards[chunk] && forward_done_[cell(stage, j)] &&
                 (stage == 2 * p_ - 1 || input_done_[cell(stage + 1, j)]);
    } else {
      possible = j < rank.inputs[chunk];
    }
    return possible ? std::optional(Action{op, stage, j}) : std::nullopt;
  }

  bool has_room(int index, int chunk) const {
    const Rank& rank = ranks_[index];
    if (rank.live() >= 2 * p_) return false;
    if (chunk == 1) return rank.forwards[1] - rank.inputs[1] <= 2 * index;
    // The way up must never be blocked by the way down: two slots are kept for chunk 1, and before
    // its first visit no more is begun than comes back in the meantime.
    if (rank.forwards[1] == 0 && rank.forwards[0] >= 2 * (p_ - index) - 1) return false;
    const bool all_came_back = rank.forwards[0] == rank.forwards[1];
    return all_came_back || rank.live() < 2 * p_ - 2;
  }

  void record(Rank& rank, const Action& action) const {
    const int chunk = action.stage == rank.stages[1] ? 1 : 0;
    auto& count = action.op == kF ? rank.forwards : action.op == kI ? rank.inputs : rank.weights;
    ++count[chunk];
    rank.list.push_back(action);
    if (rank.first < 0) rank.first = ticks_;
    rank.last = ticks_ + 1;
  }

  void publish(const Action& action) {
    if (action.op == kF) forward_done_[cell(action.stage, action.micro_batch)] = true;
    if (action.op == kI) input_done_[cell(action.stage, action.micro_batch)] = true;
  }

  int p_, m_;
  std::span<const Choice> drain_;
  std::vector<Rank> ranks_;
  std::vector<bool> forward_done_, input_done_;  // [stage * m + micro_batch]
  int ticks_ = 0;
};

}  // namespace

ActionLists generate_zb_v(const PipelineShape& shape) {
  Planner many(shape, kDrainManyMicroBatches), few(shape, kDrainFewMicroBatches);
  many.run();
  few.run();
  return few.length() < many.length() ? few.lists() : many.lists();
}

}  // namespace convoy
