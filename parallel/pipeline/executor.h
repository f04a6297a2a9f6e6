// Runs one rank's list of a pipeline schedule: one switch over actions. It follows the list, in
// order, with two liberties that change no result: a receive is posted before its place in the list
// where its memory is free, and a send completes whenever its peer takes it. Messages between two
// ranks keep the order of the list, which both of them share, so none needs a tag.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <vector>

#include "parallel/pipeline/mailbox.h"
#include "parallel/pipeline/stage.h"
#include "parallel/schedule/memory_plan.h"
#include "parallel/schedule/simulate.h"

namespace convoy {

struct ExecutorOptions {
  // Receives are posted up to this many compute actions before their place. 0 for a communicator
  // whose messages run strictly one after the other, as on one CUDA stream: there a receive posted
  // early would hold up the sends behind it.
  int receive_ahead = 1;
  int send_buffers = 2;  // of each stage and direction; 1 lets compute wait for every send
};

class PipelineExecutor {
 public:
  // `schedule` is complete (with transfers) and valid; `stages` are this rank's, ascending
  // (PipelineShape::stages_of), each with the number of slots that slots_of() says. Everything
  // given must outlive the executor.
  PipelineExecutor(const Schedule& schedule, Communicator& pipeline, Backend& backend,
                   const BoundaryShape& boundary, const std::vector<Stage*>& stages,
                   const ExecutorOptions& options = {});

  PipelineExecutor(const PipelineExecutor&) = delete;
  PipelineExecutor& operator=(const PipelineExecutor&) = delete;

  void run();  // one step

  const MemoryPlan& memory() const { return memory_; }
  // What the last step did, in order, with times in seconds from its start. A receive stands where
  // it was posted; the times of transfers are those of posting alone.
  const std::vector<TimedAction>& executed() const { return executed_; }

 private:
  struct Seat {  // a stage and its mail
    Stage* stage = nullptr;
    Inbox activations, gradients;
    Outbox outputs, input_gradients;
  };

  void perform(const Action& action);
  void forward(const Action& action);
  void backward_input(const Action& action);
  void backward_weight(const Action& action);
  void send(const Action& action);
  void post_receives(std::size_t place);
  void post_receive(const Action& action);
  void stop_waiting();
  double now() const;                           // seconds since the step began
  void record(const TimedAction& timed) const;  // in the backend's trace

  Stage::Visit visit(const Action& action) const;
  bool is_local(int stage) const;
  bool receive_is_free(const Action& action);
  // Where a stage writes what the neighbour `to` will read; empty where there is none.
  Tensor destination(const Action& action, int to);

  Schedule schedule_;
  MemoryPlan memory_;
  Communicator& pipeline_;
  Backend& backend_;
  ExecutorOptions options_;
  const std::vector<Action>& list_;
  std::map<int, Seat> seats_;     // by stage
  std::size_t next_receive_ = 0;  // index in the list from which receives are not posted yet
  std::vector<TimedAction> executed_;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace convoy
