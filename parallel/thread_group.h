// Where ranks that are threads of one process meet. Each brings a *copy* of what it gives to an
// operation, so that a rank which fails and unwinds leaves nothing dangling with the others, and
// results appear only when they are waited for, as with a real network.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include "core/tensor.h"

namespace convoy {

// How ranks as threads behave. With a delay, an operation completes no earlier than
// latency + bytes given / bytes_per_second after the last of its ranks has posted it; operations do
// not compete for the link.
struct ThreadOptions {
  double latency_s = 0;
  double bytes_per_second = 0;  // 0: no limit
  double deadline_s = 300;      // a longer wait for a rank that has not posted is an error
};

// A copy of a tensor's bytes.
class Staged {
 public:
  Staged() = default;
  explicit Staged(const Tensor& tensor);
  const std::byte* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }
  // Copies bytes [begin, begin + out.bytes()) to `out`.
  void copy_to(const Tensor& out, std::size_t begin = 0) const;
  bool same_as(const Tensor& tensor) const;

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_ = 0;
};

// What all groups of one run share: who failed, and who has returned.
class ThreadWorld {
 public:
  using Clock = std::chrono::steady_clock;

  ThreadWorld(int ranks, const ThreadOptions& options);
  const ThreadOptions& options() const { return options_; }
  int ranks() const { return static_cast<int>(returned_.size()); }
  Clock::duration delay(std::size_t bytes) const;

  // Rank `rank` threw; every other rank's wait then throws an Error that names it. Only the first
  // counts: true for it.
  bool fail(int rank, const std::string& reason);
  void leave(int rank);  // its function has returned
  void refuse_if_failed() const;
  bool has_left(int rank) const { return returned_[static_cast<std::size_t>(rank)]; }

  void enlist(std::weak_ptr<class ThreadGroup> group);

 private:
  void wake_everyone();

  ThreadOptions options_;
  std::atomic<bool> claimed_ = false, failed_ = false;
  int failed_rank_ = -1;  // written before failed_ is set
  std::string reason_;    // likewise
  std::vector<std::atomic<bool>> returned_;
  std::mutex mutex_;
  std::vector<std::weak_ptr<ThreadGroup>> groups_;
};

// One collective operation of a group; complete once every rank has brought its part.
struct Meeting {
  struct Part {
    Staged values;
    std::vector<std::int64_t> rows;  // all_to_all: how many go to each rank
    int colour = 0;                  // split
  };
  std::string what;  // "all_reduce 7 of f64[3]": the same on every rank
  std::vector<Part> parts;
  std::vector<bool> here;
  int missing = 0;
  ThreadWorld::Clock::time_point latest;  // when the last rank came
  std::condition_variable complete;

  std::once_flag combined;  // by the first rank that wants the result
  Staged total;
  std::map<int, std::shared_ptr<ThreadGroup>> subgroups;
};

struct Letter {
  Staged values;
  DType dtype;
  ThreadWorld::Clock::time_point sent;
};

// The ranks of one communicator.
class ThreadGroup {
 public:
  // `members`: the world's numbers of this group's ranks.
  ThreadGroup(std::shared_ptr<ThreadWorld> world, std::string name, std::vector<int> members);

  ThreadWorld& world() const { return *world_; }
  int size() const { return static_cast<int>(members_.size()); }
  int world_rank(int rank) const { return members_[static_cast<std::size_t>(rank)]; }
  std::shared_ptr<ThreadGroup> subgroup(int colour, std::vector<int> ranks) const;

  // Rank `rank` brings its part to the group's operation `number`, which all must call `what`.
  std::shared_ptr<Meeting> join(int rank, std::uint64_t number, const std::string& what,
                                Meeting::Part part);
  bool is_complete(const Meeting& meeting);
  void await(Meeting& meeting);

  // Message `number` from `source` to `target`.
  using Address = std::tuple<int, int, std::uint64_t>;
  void post(const Address& address, std::shared_ptr<const Letter> letter);
  std::shared_ptr<const Letter> collect(const Address& address);  // null where none has come
  std::shared_ptr<const Letter> await_letter(const Address& address);

  void wake_everyone();

 private:
  void refuse_if_hopeless(const Meeting& meeting) const;
  std::string absent(const Meeting& meeting) const;
  std::shared_ptr<const Letter> take(const Address& address);
  ThreadWorld::Clock::time_point deadline() const;

  const std::shared_ptr<ThreadWorld> world_;
  const std::string name_;
  const std::vector<int> members_;
  std::mutex mutex_;
  std::map<std::uint64_t, std::shared_ptr<Meeting>> open_;  // not yet complete
  std::map<Address, std::shared_ptr<const Letter>> letters_;
  std::condition_variable letter_came_;
};

}  // namespace convoy
