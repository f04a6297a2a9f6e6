// What communicators that stand around another one share: every operation goes on to the inner one,
// and its Work passes through one hand.
#pragma once

#include <memory>
#include <string_view>

#include "parallel/communication_log.h"
#include "parallel/communicator.h"

namespace convoy {

class ForwardingCommunicator : public Communicator {
 public:
  std::string_view name() const override { return inner_.name(); }
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }

  Work all_reduce(Tensor values, Reduction reduction) override;
  Work all_gather(Tensor out, Tensor in) override;
  Work reduce_scatter(Tensor out, Tensor in) override;
  Work all_to_all(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                  std::span<const std::int64_t> send_rows) override;
  Work broadcast(Tensor values, int root) override;
  Work exchange(std::span<const Transfer> transfers) override;
  void barrier() override { inner_.barrier(); }
  std::unique_ptr<Communicator> split(int colour) override;
  std::unique_ptr<Communicator> split_named(int colour, std::string_view label) override;
  void progress() override { inner_.progress(); }

 protected:
  // Bytes: as in CommunicationLog, but of an exchange the larger direction.
  struct Operation {
    Collective collective;
    std::size_t bytes;
  };

  explicit ForwardingCommunicator(std::unique_ptr<Communicator> inner)
      : owned_(std::move(inner)), inner_(*owned_) {}
  explicit ForwardingCommunicator(Communicator& inner) : inner_(inner) {}

  // Of what the inner communicator has just started.
  virtual Work posted(const Operation& operation, Work work) = 0;
  // The same around what was split off; never called for a group of one, which stays as it is.
  virtual std::unique_ptr<Communicator> around(std::unique_ptr<Communicator> part,
                                               std::string_view label) = 0;

 private:
  std::unique_ptr<Communicator> owned_;
  Communicator& inner_;
};

}  // namespace convoy
