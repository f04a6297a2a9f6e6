#include "parallel/pipeline/executor.h"

#include <array>
#include <string>

#include "core/backend.h"
#include "core/error.h"
#include "core/trace.h"
#include "parallel/schedule/text.h"

namespace convoy {

void Stage::gather_weights() { CHECK(false, "this stage cannot gather its weights"); }
void Stage::release_weights() { CHECK(false, "this stage cannot release its weights"); }
void Stage::reduce_gradients() { CHECK(false, "this stage cannot reduce its gradients"); }

PipelineExecutor::PipelineExecutor(const Schedule& schedule, Communicator& pipeline,
                                   Backend& backend, const BoundaryShape& boundary,
                                   const std::vector<Stage*>& stages,
                                   const ExecutorOptions& options)
    : schedule_(schedule),
      memory_(schedule_),
      pipeline_(pipeline),
      backend_(backend),
      options_(options),
      list_(schedule_.actions.at(pipeline.rank())) {
  const PipelineShape& shape = schedule_.shape;
  CHECK(pipeline.size() == shape.ranks, "a schedule for ", shape.ranks, " ranks on ",
        pipeline.size());
  CHECK(options.receive_ahead >= 0 && options.send_buffers >= 1, options.receive_ahead, ", ",
        options.send_buffers);
  const std::vector<int> own = shape.stages_of(pipeline.rank());
  CHECK(own.size() == stages.size(), stages.size(), " stages given, ", own.size(), " owned");
  for (std::size_t i = 0; i < own.size(); ++i) {
    const int stage = own[i];
    const auto outbox = [&](int to) {
      return to < 0 || to == shape.stages() || is_local(to)
                 ? Outbox()
                 : Outbox(backend, boundary, options.send_buffers);
    };
    seats_.emplace(stage, Seat{stages[i], Inbox(backend, boundary, memory_.activations_of(stage)),
                               Inbox(backend, boundary, memory_.gradients_of(stage)),
                               outbox(stage + 1), outbox(stage - 1)});
  }
}

void PipelineExecutor::run() {
  started_ = std::chrono::steady_clock::now();
  executed_.clear();
  next_receive_ = 0;
  for (std::size_t place = 0; place < list_.size(); ++place) {
    const Doing doing("action " + to_text(list_[place]));
    post_receives(place);
    perform(list_[place]);
  }
  const Doing doing("end of the pipeline step");
  for (auto& [stage, seat] : seats_) {
    seat.outputs.wait();
    seat.input_gradients.wait();
  }
}

void PipelineExecutor::perform(const Action& action) {
  if (is_receive(action.op)) return;  // posted by post_receives
  if (is_compute(action.op)) pipeline_.progress();
  executed_.push_back({action, now(), 0});
  Stage& stage = *seats_.at(action.stage).stage;
  switch (action.op) {
    case Op::forward: forward(action); break;
    case Op::backward_input: backward_input(action); break;
    case Op::backward_weight: backward_weight(action); break;
    case Op::backward:
      backward_input(action);
      backward_weight(action);
      break;
    case Op::send_activation:
    case Op::send_gradient: send(action); break;
    case Op::receive_activation:
    case Op::receive_gradient: break;
    case Op::gather_weights: stage.gather_weights(); break;
    case Op::release_weights: stage.release_weights(); break;
    case Op::reduce_gradients: stage.reduce_gradients(); break;
  }
  executed_.back().end = now();
  if (is_compute(action.op)) record(executed_.back());
}

void PipelineExecutor::forward(const Action& action) {
  const auto [op, stage, j] = action;
  Seat& seat = seats_.at(stage);
  const Tensor input =
      stage == 0 ? Tensor() : seat.activations.read(memory_.activation(stage, j), j);
  const Tensor output = destination(action, stage + 1);
  stop_waiting();
  seat.stage->forward(visit(action), input, output);
}

void PipelineExecutor::backward_input(const Action& action) {
  const auto [op, stage, j] = action;
  Seat& seat = seats_.at(stage);
  const bool last = stage == schedule_.shape.stages() - 1;
  const Tensor d_output = last ? Tensor() : seat.gradients.read(memory_.gradient(stage, j), j);
  const Tensor d_input = destination(action, stage - 1);
  stop_waiting();
  seat.stage->backward_input(visit(action), d_output, d_input);
}

void PipelineExecutor::backward_weight(const Action& action) {
  const auto [op, stage, j] = action;
  Seat& seat = seats_.at(stage);
  seat.stage->backward_weight(visit(action));
  if (stage > 0) seat.activations.release(memory_.activation(stage, j));
  if (stage < schedule_.shape.stages() - 1) seat.gradients.release(memory_.gradient(stage, j));
}

// What an action waited for is there: its work begins now.
void PipelineExecutor::stop_waiting() { executed_.back().start = now(); }

double PipelineExecutor::now() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

void PipelineExecutor::record(const TimedAction& timed) const {
  if (backend_.trace() == nullptr) return;
  const auto at = [this](double seconds) {
    return started_ + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                          std::chrono::duration<double>(seconds));
  };
  backend_.trace()->add(Trace::Kind::action, to_text(timed.action), at(timed.start), at(timed.end));
}

Tensor PipelineExecutor::destination(const Action& action, int to) {
  if (to < 0 || to == schedule_.shape.stages()) return {};
  const int j = action.micro_batch;
  const bool down = to > action.stage;
  if (is_local(to)) {
    Seat& reader = seats_.at(to);
    return down ? reader.activations.hold(memory_.activation(to, j), j)
                : reader.gradients.hold(memory_.gradient(to, j), j);
  }
  Seat& seat = seats_.at(action.stage);
  return (down ? seat.outputs : seat.input_gradients).write(j);
}

void PipelineExecutor::send(const Action& action) {
  Seat& seat = seats_.at(action.stage);
  Outbox& outbox = action.op == Op::send_activation ? seat.outputs : seat.input_gradients;
  outbox.send(pipeline_, schedule_.shape.rank_of(counterpart(action).stage), action.micro_batch);
}

// Posts the receive at this place of the list, and, while memory is free, those after it up to the
// `receive_ahead`-th compute action to come. Never one before another.
void PipelineExecutor::post_receives(std::size_t place) {
  int compute = 0;
  for (std::size_t i = place; i < list_.size(); ++i) {
    const Action& action = list_[i];
    const bool early = i > place;
    if (early && options_.receive_ahead == 0) return;
    if (early && is_compute(action.op) && ++compute == options_.receive_ahead) return;
    if (i < next_receive_) continue;
    if (is_receive(action.op)) {
      if (early && !receive_is_free(action)) return;
      post_receive(action);
    }
    next_receive_ = i + 1;
  }
}

bool PipelineExecutor::receive_is_free(const Action& action) {
  const auto [op, stage, j] = action;
  Seat& seat = seats_.at(stage);
  return op == Op::receive_activation ? seat.activations.is_free(memory_.activation(stage, j))
                                      : seat.gradients.is_free(memory_.gradient(stage, j));
}

void PipelineExecutor::post_receive(const Action& action) {
  const auto [op, stage, j] = action;
  const bool activation = op == Op::receive_activation;
  Seat& seat = seats_.at(stage);
  Inbox& inbox = activation ? seat.activations : seat.gradients;
  const int number = activation ? memory_.activation(stage, j) : memory_.gradient(stage, j);
  const int peer = schedule_.shape.rank_of(counterpart(action).stage);
  const std::array<Transfer, 1> message = {
      Transfer{Transfer::Kind::receive, inbox.hold(number, j), peer}};
  inbox.arrives_with(number, pipeline_.exchange(message));
  executed_.push_back({action, now(), now()});
}

Stage::Visit PipelineExecutor::visit(const Action& action) const {
  return {action.micro_batch, memory_.slot(action.stage, action.micro_batch)};
}

bool PipelineExecutor::is_local(int stage) const {
  return schedule_.shape.rank_of(stage) == pipeline_.rank();
}

}  // namespace convoy
