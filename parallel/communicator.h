// Communicator: the one way in which ranks talk. Every operation starts at once and returns a Work
// to wait for, so that independent work can stand between the two lines. A communicator of one rank
// is the identity, and no caller asks whether it is alone.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace convoy {

// An operation in flight. The tensors given to it must live, and stay untouched, until wait() has
// returned; a Work that goes away unwaited is waited for.
class [[nodiscard]] Work {
 public:
  // When an operation set out, and when it is there.
  struct Travel {
    std::chrono::steady_clock::time_point start, end;
  };
  // What a backend keeps of an operation it has started.
  class Pending {
   public:
    virtual ~Pending() = default;
    virtual bool test() = 0;  // makes progress; true once complete
    virtual void wait() = 0;
    virtual std::optional<Travel> travel() const { return {}; }
  };

  Work() = default;  // already complete
  explicit Work(std::unique_ptr<Pending> pending) : pending_(std::move(pending)) {}
  Work(Work&&) noexcept = default;
  Work& operator=(Work&& other) noexcept;
  ~Work() noexcept(false);

  bool test();
  void wait();
  // While it is in flight, and where the backend knows it beforehand.
  std::optional<Travel> travel() const {
    return pending_ != nullptr ? pending_->travel() : std::nullopt;
  }

 private:
  std::unique_ptr<Pending> pending_;
};

// One side of a point-to-point message.
struct Transfer {
  enum class Kind : std::uint8_t { send, receive } kind;
  Tensor tensor;
  int peer;
};

enum class Reduction : std::uint8_t { sum, maximum };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual std::string_view name() const = 0;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place. The order of a sum is the backend's: not the same for every number of ranks.
  virtual Work all_reduce(Tensor values, Reduction reduction) = 0;
  // out [size * n] from in [n] of each rank, in order of rank; `in` may be this rank's part of out.
  virtual Work all_gather(Tensor out, Tensor in) = 0;
  // out [n] = this rank's n of the sum of in [size * n].
  virtual Work reduce_scatter(Tensor out, Tensor in) = 0;
  // Rows of `in` go to rank 0, 1, ... by send_rows; rows of `out` come likewise by receive_rows.
  virtual Work all_to_all(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                          std::span<const std::int64_t> send_rows) = 0;
  virtual Work broadcast(Tensor values, int root) = 0;
  // All sends and receives start as one group, so their order cannot deadlock.
  virtual Work exchange(std::span<const Transfer> transfers) = 0;
  virtual void barrier() = 0;
  // Messages run strictly one after the other, as on one CUDA stream: one that waits for its peer
  // holds up those behind it.
  virtual bool in_order() const { return false; }
  // Ranks with equal colour form a new communicator, ordered by their rank here. Collective.
  virtual std::unique_ptr<Communicator> split(int colour) = 0;
  // The same for a group with a name, for whoever counts or watches operations by group.
  virtual std::unique_ptr<Communicator> split_named(int colour, std::string_view /*label*/) {
    return split(colour);
  }
  // Moves operations in flight along, where they do not move by themselves: long computations
  // between two operations call it now and then. Completes nothing and never blocks.
  virtual void progress() {}
};

std::unique_ptr<Communicator> make_self_communicator();

}  // namespace convoy
