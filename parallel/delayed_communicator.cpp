#include "parallel/delayed_communicator.h"

#include <algorithm>
#include <thread>

#include "parallel/forwarding_communicator.h"

namespace convoy {
namespace {

using Clock = std::chrono::steady_clock;

class DelayedWork final : public Work::Pending {
 public:
  DelayedWork(Work::Travel travel, Work work) : travel_(travel), work_(std::move(work)) {}
  ~DelayedWork() noexcept override = default;

  bool test() override { return Clock::now() >= travel_.end && work_.test(); }
  void wait() override {
    std::this_thread::sleep_until(travel_.end);
    work_.wait();
  }
  std::optional<Work::Travel> travel() const override { return travel_; }

 private:
  Work::Travel travel_;
  Work work_;
};

class DelayedCommunicator final : public ForwardingCommunicator {
 public:
  DelayedCommunicator(Communicator& inner, Link& link)
      : ForwardingCommunicator(inner), link_(link) {}
  DelayedCommunicator(std::unique_ptr<Communicator> inner, Link& link)
      : ForwardingCommunicator(std::move(inner)), link_(link) {}

 private:
  Work posted(const Operation& operation, Work work) override {
    if (operation.bytes == 0) return work;
    return Work(std::make_unique<DelayedWork>(link_.send(operation.collective, operation.bytes),
                                              std::move(work)));
  }
  std::unique_ptr<Communicator> around(std::unique_ptr<Communicator> part,
                                       std::string_view) override {
    return std::make_unique<DelayedCommunicator>(std::move(part), link_);
  }

  Link& link_;
};

}  // namespace

Work::Travel Link::send(Collective collective, std::size_t bytes) {
  const auto now = Clock::now();
  if (only && collective != *only) return {now, now};
  double seconds = latency_s;
  if (bytes_per_second > 0) seconds += static_cast<double>(bytes) / bytes_per_second;
  const auto start = std::max(now, free_);
  free_ =
      start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  bytes_ += bytes;
  seconds_ += seconds;
  return {start, free_};
}

void Link::restart() {
  bytes_ = 0;
  seconds_ = 0;
}

std::unique_ptr<Communicator> delay(Communicator& inner, Link& link) {
  return std::make_unique<DelayedCommunicator>(inner, link);
}

}  // namespace convoy
