// HaloExchange: the rows before each segment, brought from the ranks that have them, and in the
// backward pass their gradients brought back and added there. Between start and finish the rows
// travel: the caller computes what does not need them.
//
// A rank's rows are `sequences` x segments x segment_length; its halo is, in the same order,
// `before` rows a segment, zeros where they lie before the sequence.
#pragma once

#include <span>
#include <vector>

#include "core/ops.h"
#include "parallel/communicator.h"
#include "parallel/halo_plan.h"

namespace convoy {

class HaloExchange {
 public:
  // Memory for the messages comes from the context's arena and must live until the last finish.
  HaloExchange(const Context& context, Communicator& ranks, const RowLayout& layout,
               std::int64_t sequences, std::int64_t before);

  bool empty() const { return runs_.empty(); }  // no segment has rows before it
  std::int64_t halo_rows() const { return sequences_ * layout_.segments() * before_; }

  // halo [halo_rows, C] from the columns of `parts`, each [rows, C_i], side by side.
  void start(Tensor halo, std::span<const Tensor> parts);
  void finish(Tensor halo);

  // Adds dhalo to the rows of `dparts` that the halo was copied from.
  void start_return(Tensor dhalo);
  void finish_return(Tensor dhalo, std::span<const Tensor> dparts);

 private:
  // All rows that this rank sends to `peer`, or has from it, in the order of the runs.
  struct Message {
    int peer;
    std::vector<HaloRun> runs;
    Tensor rows;
  };

  static Message& message_of(std::vector<Message>& messages, int peer);
  void provide(std::vector<Message>& messages, std::int64_t columns);
  void post(const std::vector<Message>& send, const std::vector<Message>& receive);
  Tensor rows_of(const Tensor& x, const HaloRun& run, std::int64_t sequence) const;
  Tensor halo_of(const Tensor& halo, const HaloRun& run, std::int64_t sequence) const;
  // Calls function(rows, run, sequence) for each piece of a message.
  template <class Function>
  void for_each_piece(const Message& message, Function function) const;

  Context context_;
  Communicator& ranks_;
  RowLayout layout_;
  std::int64_t sequences_, before_;
  std::vector<HaloRun> runs_;     // of all ranks
  std::vector<Message> readers_;  // rows that others read here
  std::vector<Message> owners_;   // rows that this rank reads from others
  std::vector<HaloRun> own_;      // rows that this rank reads from itself
  Work in_flight_;
};

}  // namespace convoy
