#include "parallel/forwarding_communicator.h"

#include <algorithm>

namespace convoy {

Work ForwardingCommunicator::all_reduce(Tensor values, Reduction reduction) {
  return posted({Collective::all_reduce, values.bytes()}, inner_.all_reduce(values, reduction));
}

Work ForwardingCommunicator::all_gather(Tensor out, Tensor in) {
  return posted({Collective::all_gather, in.bytes()}, inner_.all_gather(out, in));
}

Work ForwardingCommunicator::reduce_scatter(Tensor out, Tensor in) {
  return posted({Collective::reduce_scatter, in.bytes()}, inner_.reduce_scatter(out, in));
}

Work ForwardingCommunicator::all_to_all(Tensor out, std::span<const std::int64_t> receive_rows,
                                        Tensor in, std::span<const std::int64_t> send_rows) {
  return posted({Collective::all_to_all, in.bytes()},
                inner_.all_to_all(out, receive_rows, in, send_rows));
}

Work ForwardingCommunicator::broadcast(Tensor values, int root) {
  return posted({Collective::broadcast, values.bytes()}, inner_.broadcast(values, root));
}

Work ForwardingCommunicator::exchange(std::span<const Transfer> transfers) {
  std::size_t sent = 0, received = 0;
  for (const auto& [kind, tensor, peer] : transfers) {
    (kind == Transfer::Kind::send ? sent : received) += tensor.bytes();
  }
  return posted({Collective::exchange, std::max(sent, received)}, inner_.exchange(transfers));
}

std::unique_ptr<Communicator> ForwardingCommunicator::split(int colour) {
  return split_named(colour, concat("part ", colour));
}

std::unique_ptr<Communicator> ForwardingCommunicator::split_named(int colour,
                                                                  std::string_view label) {
  auto part = inner_.split_named(colour, label);
  return part->size() == 1 ? std::move(part) : around(std::move(part), label);
}

}  // namespace convoy
