// One thing that a rank of a pipeline does: an operation on one micro-batch of one stage. A stage
// is *virtual*: a rank owns one or several of them (PipelineShape::rank_of says which).
#pragma once

#include <cstdint>

namespace convoy {

enum class Op : std::uint8_t {
  forward,          // F
  backward,         // B: input and weight gradients at once
  backward_input,   // I: the gradient that the stage before waits for
  backward_weight,  // W: what may run later
  send_activation,  // the output of F, to the next stage
  receive_activation,
  send_gradient,  // the output of B or I, to the stage before
  receive_gradient,
  gather_weights,    // ZeRO-3: all-gather this stage's weights
  release_weights,   // ZeRO-3: drop them
  reduce_gradients,  // the stage's weight gradients are complete for this step
};

struct Action {
  // For gather, release and reduce, which concern the whole stage.
  static constexpr int kNoMicroBatch = -1;

  Op op;
  int stage;
  int micro_batch = kNoMicroBatch;

  friend bool operator==(const Action&, const Action&) = default;
};

inline bool is_compute(Op op) { return op <= Op::backward_weight; }
inline bool is_transfer(Op op) { return op >= Op::send_activation && op <= Op::receive_gradient; }
inline bool is_send(Op op) { return op == Op::send_activation || op == Op::send_gradient; }
inline bool is_receive(Op op) { return is_transfer(op) && !is_send(op); }
// Produces the gradient with respect to the stage's input.
inline bool gives_input_gradient(Op op) { return op == Op::backward || op == Op::backward_input; }
// The last use of what the forward pass saved.
inline bool ends_slot(Op op) { return op == Op::backward || op == Op::backward_weight; }

// The other side of a transfer: 2SA0 <-> 3RA0, 2SG0 <-> 1RG0.
Action counterpart(const Action& transfer);

}  // namespace convoy
