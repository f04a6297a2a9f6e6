#include "parallel/schedule/validate.h"

#include <optional>
#include <string>

#include "core/error.h"
#include "parallel/schedule/blocking.h"
#include "parallel/schedule/text.h"

namespace convoy {
namespace {

// What one rank's list says, checked action by action. Nothing here depends on other ranks: data
// from one comes by a receive, which stands in the list before its use.
class RankCheck {
 public:
  RankCheck(const Schedule& schedule, int rank)
      : schedule_(schedule),
        rank_(rank),
        done_(cell(Op::gather_weights, 0, 0), false),
        held_(schedule.shape.stages(), false),
        reduced_(schedule.shape.stages(), false) {
    for (const Action& action : schedule.actions[rank]) {
      if (action.op == Op::gather_weights) sharded_ = true;
    }
  }

  void run() {
    const auto& list = schedule_.actions[rank_];
    for (place_ = 0; place_ < list.size(); ++place_) check(list[place_]);
    for (const int stage : schedule_.shape.stages_of(rank_)) {
      for (int j = 0; j < schedule_.shape.micro_batches; ++j) check_complete(stage, j);
      if (held_[stage]) fail({Op::gather_weights, stage}, "is never released");
    }
  }

 private:
  [[noreturn]] void fail(const Action& action, const std::string& what) const {
    throw Error(concat("schedule ", name_of(schedule_.shape.kind), ", rank ", rank_, ": ",
                       to_text(action), " (action ", place_, " of ",
                       schedule_.actions[rank_].size(), ") ", what));
  }

  std::size_t cell(Op op, int stage, int micro_batch) const {
    const PipelineShape& shape = schedule_.shape;
    return (static_cast<std::size_t>(op) * shape.stages() + stage) * shape.micro_batches +
           micro_batch;
  }
  bool done(Op op, int stage, int micro_batch) const { return done_[cell(op, stage, micro_batch)]; }
  bool gradient_given(int stage, int micro_batch) const {
    return done(Op::backward, stage, micro_batch) || done(Op::backward_input, stage, micro_batch);
  }

  void check(const Action& action) {
    const PipelineShape& shape = schedule_.shape;
    if (action.stage < 0 || action.stage >= shape.stages() ||
        shape.rank_of(action.stage) != rank_) {
      fail(action, "is of a stage that this rank does not own");
    }
    if (is_compute(action.op) || is_transfer(action.op)) {
      check_micro_batch(action);
    } else {
      check_whole_stage(action);
    }
  }

  void check_micro_batch(const Action& action) {
    const auto [op, stage, j] = action;
    if (j < 0 || j >= schedule_.shape.micro_batches) {
      fail(action, concat("is not of micro-batches 0 to ", schedule_.shape.micro_batches - 1));
    }
    if (done(op, stage, j)) fail(action, "is there twice");
    done_[cell(op, stage, j)] = true;
    if (reduced_[stage] && is_compute(op)) fail(action, "comes after the stage's REDUCE");
    if (is_transfer(op)) {
      check_transfer(action);
      return;
    }
    if (sharded_ && !held_[stage]) fail(action, "runs without the stage's weights gathered");
    if (const auto needed = missing(action)) fail(action, "runs before " + to_text(*needed));
  }

  // What must stand before a compute action and does not.
  std::optional<Action> missing(const Action& action) const {
    const auto [op, stage, j] = action;
    if (op != Op::forward && !done(Op::forward, stage, j)) return Action{Op::forward, stage, j};
    if (op == Op::backward_weight) {
      const Action input{Op::backward_input, stage, j};
      return done(input.op, stage, j) ? std::nullopt : std::optional(input);
    }
    const bool down = op == Op::forward;
    const int from = stage + (down ? -1 : 1);
    if (from < 0 || from == schedule_.shape.stages()) return {};
    if (is_local(from)) {
      const bool there = down ? done(Op::forward, from, j) : gradient_given(from, j);
      if (there) return {};
      return Action{down ? Op::forward : Op::backward_input, from, j};
    }
    const Action receive{down ? Op::receive_activation : Op::receive_gradient, stage, j};
    return done(receive.op, stage, j) ? std::nullopt : std::optional(receive);
  }

  bool is_local(int stage) const { return schedule_.shape.rank_of(stage) == rank_; }

  void check_transfer(const Action& action) const {
    const auto [op, stage, j] = action;
    const int other = counterpart(action).stage;
    if (other < 0 || other >= schedule_.shape.stages()) fail(action, "has no stage to talk to");
    if (is_local(other)) fail(action, "is between two stages of one rank");
    if (op == Op::send_activation && !done(Op::forward, stage, j)) {
      fail(action, "sends before " + to_text(Action{Op::forward, stage, j}));
    }
    if (op == Op::send_gradient && !gradient_given(stage, j)) {
      fail(action, "sends before the stage's backward pass of that micro-batch");
    }
  }

  void check_whole_stage(const Action& action) {
    const int stage = action.stage;
    if (action.op == Op::reduce_gradients) {
      if (reduced_[stage]) fail(action, "is there twice");
      reduced_[stage] = true;
      for (int j = 0; j < schedule_.shape.micro_batches; ++j) check_complete(stage, j);
      return;
    }
    const bool gathers = action.op == Op::gather_weights;
    if (held_[stage] == gathers) {
      fail(action, gathers ? "gathers weights that are held" : "releases weights not held");
    }
    held_[stage] = gathers;
  }

  void check_complete(int stage, int j) const {
    const bool whole = done(Op::backward, stage, j);
    const bool input = done(Op::backward_input, stage, j);
    const bool weight = done(Op::backward_weight, stage, j);
    if (!done(Op::forward, stage, j)) fail({Op::forward, stage, j}, "is missing");
    if (whole && (input || weight)) fail({Op::backward, stage, j}, "is there beside I or W");
    if (!whole && !input) fail({Op::backward_input, stage, j}, "is missing, and B too");
    if (!whole && !weight) fail({Op::backward_weight, stage, j}, "is missing, and B too");
  }

  const Schedule& schedule_;
  int rank_;
  bool sharded_ = false;
  std::size_t place_ = 0;
  std::vector<bool> done_;            // [op, stage, micro-batch], of the actions that have one
  std::vector<bool> held_, reduced_;  // [stage]
};

}  // namespace

void validate(const Schedule& schedule) {
  check_shape(schedule.shape);
  CHECK(schedule.actions.size() == static_cast<std::size_t>(schedule.shape.ranks),
        schedule.actions.size(), " lists of actions for ", schedule.shape.ranks, " ranks");
  for (int rank = 0; rank < schedule.shape.ranks; ++rank) RankCheck(schedule, rank).run();
  check_no_deadlock(schedule);
}

}  // namespace convoy
