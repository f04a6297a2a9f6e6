// The tensors that pass between the stages of one rank and others: what came in, until the stage is
// done with it, and what goes out, until it has left. All of them are allocated once, as many as
// the MemoryPlan says.
#pragma once

#include <vector>

#include "core/memory.h"
#include "parallel/communicator.h"

namespace convoy {

// One micro-batch's activation, and the gradient with respect to it.
struct BoundaryShape {
  std::int64_t rows, columns;
  DType dtype;
};

// What arrives at one stage: activations or gradients. Each is held by a micro-batch from its
// arrival (or from the moment a stage of the same rank begins to write it) to release().
class Inbox {
 public:
  Inbox() = default;
  Inbox(Backend& backend, const BoundaryShape& shape, int count);

  bool is_free(int number) const { return entries_.at(number).micro_batch < 0; }
  Tensor hold(int number, int micro_batch);  // for whoever writes it
  void arrives_with(int number, Work work);  // it is written by a message
  Tensor read(int number, int micro_batch);  // waits for the message
  void release(int number);

 private:
  struct Entry {
    OwnedTensor tensor;
    Work arrival;
    int micro_batch = -1;  // who holds it
  };
  std::vector<Entry> entries_;
};

// What one stage sends. Used in turn; one is written again only once its last message has left.
class Outbox {
 public:
  Outbox() = default;
  Outbox(Backend& backend, const BoundaryShape& shape, int count);

  Tensor write(int micro_batch);  // waits until one is free
  // Sends what was written last, which must be of this micro-batch.
  void send(Communicator& ranks, int peer, int micro_batch);
  void wait();  // until all have left

 private:
  struct Entry {
    OwnedTensor tensor;
    Work departure;
  };
  std::vector<Entry> entries_;
  int next_ = 0;          // the one to write next
  int micro_batch_ = -1;  // written and not yet sent
};

}  // namespace convoy
