#include "parallel/instrumented_communicator.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

namespace convoy {
namespace {

// One operation: adds to its count the time spent waiting, and says so to who watches.
struct Watched {
  Collective collective;
  CommunicationCount& count;
  RankActivity* activity;  // or null
  std::string_view group;
  std::uint64_t number;
  std::vector<int> peers;

  template <class Function>
  void wait_in(Function&& wait) const {
    using Clock = std::chrono::steady_clock;
    struct EndWait {
      RankActivity* activity;
      ~EndWait() {
        if (activity != nullptr) activity->end_wait();
      }
    };
    if (activity != nullptr) activity->begin_wait(collective, number, group, peers);
    const EndWait end{activity};
    const auto start = Clock::now();
    wait();
    count.wait_s += std::chrono::duration<double>(Clock::now() - start).count();
  }
};

class WatchedWork final : public Work::Pending {
 public:
  WatchedWork(Watched watched, Work work) : watched_(std::move(watched)), work_(std::move(work)) {}
  // The work is complete by now, or abandoned while an exception unwinds.
  ~WatchedWork() noexcept override = default;
  bool test() override { return work_.test(); }
  void wait() override {
    if (work_.test()) return;
    watched_.wait_in([this] { work_.wait(); });
  }

 private:
  Watched watched_;
  Work work_;
};

// Who the members of a group are in the world. Nobody knows yet whom this waits for.
std::vector<int> world_ranks_of(Communicator& group, std::string_view label,
                                RankActivity& activity) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(group.size()));
  std::int32_t mine = activity.rank();
  const Tensor in(&mine, DType::i32, DeviceKind::cpu, {1});
  const Tensor out(all.data(), DType::i32, DeviceKind::cpu, {group.size()});
  activity.begin_wait(Collective::all_gather, 0, label, {});
  group.all_gather(out, in).wait();
  activity.end_wait();
  return {all.begin(), all.end()};
}

class InstrumentedCommunicator final : public Communicator {
 public:
  bool in_order() const override { return inner_.in_order(); }
  InstrumentedCommunicator(Communicator& inner, std::unique_ptr<Communicator> owned,
                           std::string_view label, CommunicationLog& log, RankActivity* activity)
      : owned_(std::move(owned)),
        inner_(inner),
        label_(label),
        log_(log),
        counts_(log.counts_of(label)),
        activity_(activity) {
    if (activity_ != nullptr) members_ = world_ranks_of(inner_, label_, *activity_);
  }

  std::string_view name() const override { return inner_.name(); }
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }

  Work all_reduce(Tensor values, Reduction reduction) override {
    auto watched = begin(Collective::all_reduce, values.bytes());
    return watch(std::move(watched), inner_.all_reduce(values, reduction));
  }
  Work all_gather(Tensor out, Tensor in) override {
    auto watched = begin(Collective::all_gather, in.bytes());
    return watch(std::move(watched), inner_.all_gather(out, in));
  }
  Work reduce_scatter(Tensor out, Tensor in) override {
    auto watched = begin(Collective::reduce_scatter, in.bytes());
    return watch(std::move(watched), inner_.reduce_scatter(out, in));
  }
  Work all_to_all(Tensor out, std::span<const std::int64_t> receive_rows, Tensor in,
                  std::span<const std::int64_t> send_rows) override {
    auto watched = begin(Collective::all_to_all, in.bytes());
    return watch(std::move(watched), inner_.all_to_all(out, receive_rows, in, send_rows));
  }
  Work broadcast(Tensor values, int root) override {
    auto watched = begin(Collective::broadcast, root == rank() ? values.bytes() : 0);
    return watch(std::move(watched), inner_.broadcast(values, root));
  }
  Work exchange(std::span<const Transfer> transfers) override {
    std::size_t bytes = 0;
    std::vector<int> peers;
    for (const auto& [kind, tensor, peer] : transfers) {
      if (kind == Transfer::Kind::send) bytes += tensor.bytes();
      if (activity_ != nullptr) peers.push_back(members_.at(static_cast<std::size_t>(peer)));
    }
    std::sort(peers.begin(), peers.end());
    peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
    auto watched = begin(Collective::exchange, bytes);
    watched.peers = std::move(peers);
    return watch(std::move(watched), inner_.exchange(transfers));
  }
  void barrier() override {
    begin(Collective::barrier, 0).wait_in([this] { inner_.barrier(); });
  }
  std::unique_ptr<Communicator> split(int colour) override {
    return split_named(colour, concat(label_, '/', colour));
  }
  std::unique_ptr<Communicator> split_named(int colour, std::string_view label) override {
    std::unique_ptr<Communicator> part;
    begin(Collective::split, 0).wait_in([&] { part = inner_.split_named(colour, label); });
    return instrument(std::move(part), label, log_, activity_);
  }
  void progress() override { inner_.progress(); }

 private:
  Watched begin(Collective collective, std::size_t bytes) {
    auto& count = counts_[static_cast<std::size_t>(collective)];
    ++count.operations;
    count.bytes += static_cast<std::int64_t>(bytes);
    const std::uint64_t number = activity_ != nullptr ? activity_->post(label_) : 0;
    return {collective, count, activity_, label_, number, members_};
  }
  static Work watch(Watched watched, Work work) {
    return Work(std::make_unique<WatchedWork>(std::move(watched), std::move(work)));
  }

  std::unique_ptr<Communicator> owned_;  // or none
  Communicator& inner_;
  std::string label_;
  CommunicationLog& log_;
  CommunicationLog::Counts& counts_;
  RankActivity* activity_;
  std::vector<int> members_;  // their ranks in the world, where someone watches
};

}  // namespace

std::unique_ptr<Communicator> instrument(std::unique_ptr<Communicator> inner,
                                         std::string_view label, CommunicationLog& log,
                                         RankActivity* activity) {
  if (inner->size() == 1) return inner;
  Communicator& stays = *inner;
  return std::make_unique<InstrumentedCommunicator>(stays, std::move(inner), label, log, activity);
}

std::unique_ptr<Communicator> instrument(Communicator& inner, std::string_view label,
                                         CommunicationLog& log, RankActivity* activity) {
  if (inner.size() == 1) return make_self_communicator();
  return std::make_unique<InstrumentedCommunicator>(inner, nullptr, label, log, activity);
}

}  // namespace convoy
