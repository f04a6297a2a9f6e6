#include "parallel/thread_communicator.h"

#include <algorithm>
#include <exception>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>

namespace convoy {
namespace {

using Clock = ThreadWorld::Clock;

void check_sendable(const Tensor& t) {
  CHECK(t.contiguous(), "a strided ", t.describe(), " cannot be sent");
  CHECK(t.device() == DeviceKind::cpu, t.describe(), " is not in host memory");
}

template <class T>
void combine(T* total, const T* values, std::int64_t n, Reduction reduction) {
  if (reduction == Reduction::sum) {
    for (std::int64_t i = 0; i < n; ++i) total[i] += values[i];
  } else {
    for (std::int64_t i = 0; i < n; ++i) total[i] = std::max(total[i], values[i]);
  }
}

// total = parts[0] + parts[1] + ... over the elements that start at byte `begin` of each part.
void combine_in_rank_order(const Tensor& total, const std::vector<Meeting::Part>& parts,
                           std::size_t begin, Reduction reduction) {
  parts.front().values.copy_to(total, begin);
  const auto add = [&]<class T>() {
    for (std::size_t r = 1; r < parts.size(); ++r) {
      const auto* values = reinterpret_cast<const T*>(parts[r].values.data() + begin);
      combine(total.data<T>(), values, total.size(), reduction);
    }
  };
  if (total.dtype() == DType::i32) return add.template operator()<std::int32_t>();
  dispatch_real(total.dtype(), add);
}

void check_reducible(const Tensor& t) {
  check_sendable(t);
  CHECK(t.dtype() != DType::bf16 && t.dtype() != DType::u16, t.describe(),
        " is not reduced between CPU ranks: each addition would round; reduce in f32");
}

// A collective that has been posted; `deliver` writes this rank's result.
class PendingMeeting final : public Work::Pending {
 public:
  PendingMeeting(std::shared_ptr<ThreadGroup> group, std::shared_ptr<Meeting> meeting, int rank,
                 Tensor given, std::function<void(Meeting&)> deliver)
      : group_(std::move(group)),
        meeting_(std::move(meeting)),
        rank_(rank),
        given_(given),
        deliver_(std::move(deliver)) {}

  bool test() override {
    if (!group_->is_complete(*meeting_) || Clock::now() < ready()) return false;
    finish();
    return true;
  }
  void wait() override {
    group_->await(*meeting_);
    std::this_thread::sleep_until(ready());
    finish();
  }

 private:
  Clock::time_point ready() const {
    return meeting_->latest + group_->world().delay(given_.empty() ? 0 : given_.bytes());
  }
  void finish() {
    if (!given_.empty()) {
      CHECK(meeting_->parts[static_cast<std::size_t>(rank_)].values.same_as(given_),
            given_.describe(), " was changed during ", meeting_->what);
    }
    deliver_(*meeting_);
  }

  std::shared_ptr<ThreadGroup> group_;
  std::shared_ptr<Meeting> meeting_;
  int rank_;
  Tensor given_;
  std::function<void(Meeting&)> deliver_;
};

// Messages in flight. A send is complete by itself; a receive once its message has come.
class PendingLetters final : public Work::Pending {
 public:
  explicit PendingLetters(std::shared_ptr<ThreadGroup> group)
      : group_(std::move(group)), posted_(Clock::now()) {}

  void send(const Tensor& tensor, const ThreadGroup::Address& address) {
    auto letter = std::make_shared<const Letter>(Letter{Staged(tensor), tensor.dtype(), posted_});
    sends_.emplace_back(tensor, letter);
    group_->post(address, letter);
    ready_ = std::max(ready_, posted_ + group_->world().delay(tensor.bytes()));
  }
  void receive(const Tensor& tensor, const ThreadGroup::Address& address) {
    receives_.push_back({tensor, address, nullptr});
  }

  bool test() override {
    for (auto& expected : receives_) {
      if (expected.letter == nullptr) accept(expected, group_->collect(expected.address));
      if (expected.letter == nullptr) return false;
    }
    if (Clock::now() < ready_) return false;
    finish();
    return true;
  }
  void wait() override {
    for (auto& expected : receives_) {
      if (expected.letter == nullptr) accept(expected, group_->await_letter(expected.address));
    }
    std::this_thread::sleep_until(ready_);
    finish();
  }

 private:
  struct Expected {
    Tensor tensor;
    ThreadGroup::Address address;
    std::shared_ptr<const Letter> letter;
  };

  void accept(Expected& expected, std::shared_ptr<const Letter> letter) {
    if (letter == nullptr) return;
    const Tensor& into = expected.tensor;
    CHECK(letter->dtype == into.dtype() && letter->values.size() == into.bytes(), "rank ",
          group_->world_rank(std::get<0>(expected.address)), " sent ", letter->values.size(),
          " bytes of ", name_of(letter->dtype), " where rank ",
          group_->world_rank(std::get<1>(expected.address)), " expects ", into.describe());
    ready_ =
        std::max(ready_, std::max(letter->sent, posted_) + group_->world().delay(into.bytes()));
    expected.letter = std::move(letter);
  }
  void finish() {
    for (const auto& [tensor, letter] : sends_) {
      CHECK(letter->values.same_as(tensor), tensor.describe(), " was changed while being sent");
    }
    for (const auto& [tensor, address, letter] : receives_) letter->values.copy_to(tensor);
  }

  std::shared_ptr<ThreadGroup> group_;
  Clock::time_point posted_, ready_ = posted_;
  std::vector<std::pair<Tensor, std::shared_ptr<const Letter>>> sends_;
  std::vector<Expected> receives_;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank)
      : group_(std::move(group)),
        rank_(rank),
        sent_(static_cast<std::size_t>(group_->size())),
        received_(sent_.size()) {}

  std::string_view name() const override { return "thread"; }
  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  Work all_reduce(Tensor values, Reduction reduction) override {
    check_reducible(values);
    const char* kind = reduction == Reduction::sum ? "all_reduce (sum) " : "all_reduce (maximum) ";
    return post(kind, values, values, {}, [values, reduction](Meeting& meeting) {
      std::call_once(meeting.combined, [&] {
        combine_in_rank_order(values, meeting.parts, 0, reduction);
        meeting.total = Staged(values);
      });
      meeting.total.copy_to(values);
    });
  }

  Work all_gather(Tensor out, Tensor in) override {
    check_sendable(out);
    CHECK(out.size() == in.size() * size() && out.dtype() == in.dtype(), in.describe(), " of ",
          size(), " ranks into ", out.describe());
    return post("all_gather ", in, in, {}, [out, n = in.size()](Meeting& meeting) {
      const Tensor flat = out.reshape({out.size(), 1});
      std::int64_t begin = 0;
      for (const auto& part : meeting.parts) {
        part.values.copy_to(flat.row_range(begin, n));
        begin += n;
      }
    });
  }

  Work reduce_scatter(Tensor out, Tensor in) override {
    check_reducible(in);
    check_sendable(out);
    CHECK(in.size() == out.size() * size() && out.dtype() == in.dtype(), in.describe(), " over ",
          size(), " ranks into ", out.describe());
    return post("reduce_scatter ", in, in, {}, [out, rank = rank_](Meeting& meeting) {
      combine_in_rank_order(out, meeting.parts, static_cast<std::size_t>(rank) * out.bytes(),
                            Reduction::sum);
    });
  }

  Work all_to_all(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                  std::span<const std::int64_t> send_rows) override {
    check_sendable(out);
    CHECK(std::ssize(send_rows) == size() && std::ssize(receive_rows) == size(), send_rows.size(),
          " and ", receive_rows.size(), " row counts for ", size(), " ranks");
    CHECK(out.cols() == in.cols() && out.dtype() == in.dtype(), in.describe(), " to ",
          out.describe());
    Meeting::Part part;
    part.rows.assign(send_rows.begin(), send_rows.end());
    std::vector<std::int64_t> expected(receive_rows.begin(), receive_rows.end());
    const Tensor one_row(nullptr, in.dtype(), DeviceKind::cpu, {in.cols()});
    return post("all_to_all of rows of ", one_row, in, std::move(part),
                [out, expected = std::move(expected), rank = rank_](Meeting& meeting) {
                  deliver_rows(out, expected, meeting.parts, static_cast<std::size_t>(rank));
                });
  }

  Work broadcast(Tensor values, int root) override {
    CHECK(root >= 0 && root < size(), "root ", root, " of ", size(), " ranks");
    const bool gives = root == rank_;
    return post(concat("broadcast from ", root, ' '), values, gives ? values : Tensor(), {},
                [values, root, gives](Meeting& meeting) {
                  if (!gives) meeting.parts[static_cast<std::size_t>(root)].values.copy_to(values);
                });
  }

  Work exchange(std::span<const Transfer> transfers) override {
    group_->world().refuse_if_failed();
    auto letters = std::make_unique<PendingLetters>(group_);
    for (const auto& [kind, tensor, peer] : transfers) {
      check_sendable(tensor);
      CHECK(peer >= 0 && peer < size(), "peer ", peer, " of ", size(), " ranks");
      const auto other = static_cast<std::size_t>(peer);
      if (kind == Transfer::Kind::send) {
        letters->send(tensor, {rank_, peer, sent_[other]++});
      } else {
        letters->receive(tensor, {peer, rank_, received_[other]++});
      }
    }
    return Work(std::move(letters));
  }

  void barrier() override {
    join("barrier", {}, [](Meeting&) {}).wait();
  }

  std::unique_ptr<Communicator> split(int colour) override {
    Meeting::Part part;
    part.colour = colour;
    std::unique_ptr<Communicator> result;
    join("split", std::move(part), [&](Meeting& meeting) {
      std::call_once(meeting.combined, [&] { make_subgroups(meeting); });
      const auto first = meeting.parts.begin();
      const auto before = std::count_if(
          first, first + rank_, [colour](const auto& other) { return other.colour == colour; });
      result = std::make_unique<ThreadCommunicator>(meeting.subgroups.at(colour),
                                                    static_cast<int>(before));
    }).wait();
    return result;
  }

 private:
  static void deliver_rows(const Tensor& out, std::span<const std::int64_t> expected,
                           const std::vector<Meeting::Part>& parts, std::size_t rank) {
    const std::size_t row_bytes = static_cast<std::size_t>(out.cols()) * size_of(out.dtype());
    std::int64_t begin = 0;
    for (std::size_t r = 0; r < parts.size(); ++r) {
      const auto& sent = parts[r].rows;
      CHECK(sent[rank] == expected[r], "rank ", r, " of the group sent ", sent[rank], " rows to ",
            rank, ", which expected ", expected[r]);
      const auto before = std::accumulate(sent.begin(), sent.begin() + rank, std::int64_t{0});
      parts[r].values.copy_to(out.reshape({out.rows(), out.cols()}).row_range(begin, sent[rank]),
                              static_cast<std::size_t>(before) * row_bytes);
      begin += sent[rank];
    }
  }

  void make_subgroups(Meeting& meeting) const {
    std::map<int, std::vector<int>> members;
    for (std::size_t r = 0; r < meeting.parts.size(); ++r) {
      members[meeting.parts[r].colour].push_back(static_cast<int>(r));
    }
    for (auto& [colour, ranks] : members) {
      meeting.subgroups[colour] = group_->subgroup(colour, std::move(ranks));
    }
  }

  // `described` must have the same shape on all ranks; `given` is what this rank gives, if
  // anything.
  Work post(std::string kind, const Tensor& described, const Tensor& given, Meeting::Part part,
            std::function<void(Meeting&)> deliver) {
    if (!given.empty()) {
      check_sendable(given);
      part.values = Staged(given);
    }
    kind += concat(name_of(described.dtype()), " x ", described.size());
    return join(std::move(kind), std::move(part), std::move(deliver), given);
  }

  Work join(std::string what, Meeting::Part part, std::function<void(Meeting&)> deliver,
            const Tensor& given = {}) {
    group_->world().refuse_if_failed();
    const std::uint64_t number = posted_++;
    what += concat(" (number ", number, ')');
    auto meeting = group_->join(rank_, number, what, std::move(part));
    return Work(std::make_unique<PendingMeeting>(group_, std::move(meeting), rank_, given,
                                                 std::move(deliver)));
  }

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  std::uint64_t posted_ = 0;
  std::vector<std::uint64_t> sent_, received_;  // messages to and from each rank
};

// What the ranks' threads leave behind for the thread that started them.
struct Outcome {
  std::mutex mutex;
  std::exception_ptr first_failure;
};

void run_rank(ThreadWorld& world, const std::shared_ptr<ThreadGroup>& group, int rank,
              const std::function<void(Communicator&)>& body, Outcome& outcome) {
  set_error_rank(rank);
  const auto failed = [&](const std::string& reason) {
    if (!world.fail(rank, reason)) return;
    const std::lock_guard lock(outcome.mutex);
    outcome.first_failure = std::current_exception();
  };
  try {
    ThreadCommunicator communicator(group, rank);
    body(communicator);
    world.leave(rank);
  } catch (const std::exception& error) {
    failed(error.what());
  } catch (...) {
    failed("it threw something that is no std::exception");
  }
}

}  // namespace

void run_on_threads(int ranks, const std::function<void(Communicator&)>& body,
                    const ThreadOptions& options) {
  CHECK(ranks > 0, "a run needs at least one rank, not ", ranks);
  const auto world = std::make_shared<ThreadWorld>(ranks, options);
  std::vector<int> members(static_cast<std::size_t>(ranks));
  std::iota(members.begin(), members.end(), 0);
  const auto group = std::make_shared<ThreadGroup>(world, "world", std::move(members));
  world->enlist(group);
  Outcome outcome;
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] { run_rank(*world, group, rank, body, outcome); });
    }
  }
  if (outcome.first_failure != nullptr) std::rethrow_exception(outcome.first_failure);
}

}  // namespace convoy
