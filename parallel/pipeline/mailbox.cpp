#include "parallel/pipeline/mailbox.h"

#include <array>
#include <utility>

#include "core/error.h"

namespace convoy {

Inbox::Inbox(Backend& backend, const BoundaryShape& shape, int count) {
  for (int i = 0; i < count; ++i) {
    entries_.push_back({OwnedTensor(backend, shape.dtype, {shape.rows, shape.columns}), {}, -1});
  }
}

Tensor Inbox::hold(int number, int micro_batch) {
  Entry& entry = entries_.at(number);
  CHECK(entry.micro_batch < 0, "tensor ", number, " is wanted for micro-batch ", micro_batch,
        " and still held by ", entry.micro_batch);
  entry.micro_batch = micro_batch;
  return entry.tensor.view();
}

void Inbox::arrives_with(int number, Work work) { entries_.at(number).arrival = std::move(work); }

Tensor Inbox::read(int number, int micro_batch) {
  Entry& entry = entries_.at(number);
  CHECK(entry.micro_batch == micro_batch, "tensor ", number, " holds micro-batch ",
        entry.micro_batch, ", not ", micro_batch);
  entry.arrival.wait();
  return entry.tensor.view();
}

void Inbox::release(int number) { entries_.at(number).micro_batch = -1; }

Outbox::Outbox(Backend& backend, const BoundaryShape& shape, int count) {
  for (int i = 0; i < count; ++i) {
    entries_.push_back({OwnedTensor(backend, shape.dtype, {shape.rows, shape.columns}), {}});
  }
}

Tensor Outbox::write(int micro_batch) {
  CHECK(micro_batch_ < 0, "micro-batch ", micro_batch_, " was never sent");
  micro_batch_ = micro_batch;
  Entry& entry = entries_.at(next_);
  entry.departure.wait();
  return entry.tensor.view();
}

void Outbox::send(Communicator& ranks, int peer, int micro_batch) {
  CHECK(micro_batch_ == micro_batch, "micro-batch ", micro_batch, " is to be sent, ", micro_batch_,
        " was written last: a send must follow its compute action");
  Entry& entry = entries_.at(next_);
  const std::array<Transfer, 1> message = {
      Transfer{Transfer::Kind::send, entry.tensor.view(), peer}};
  entry.departure = ranks.exchange(message);
  micro_batch_ = -1;
  next_ = (next_ + 1) % static_cast<int>(entries_.size());
}

void Outbox::wait() {
  for (Entry& entry : entries_) entry.departure.wait();
}

}  // namespace convoy
