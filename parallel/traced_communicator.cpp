#include "parallel/traced_communicator.h"

#include <string>

#include "parallel/forwarding_communicator.h"

namespace convoy {
namespace {

using Clock = Trace::Clock;

class TracedWork final : public Work::Pending {
 public:
  TracedWork(Trace& trace, std::string name, Work work)
      : trace_(trace),
        name_(std::move(name)),
        posted_(Clock::now()),
        travel_(work.travel()),
        work_(std::move(work)) {}
  ~TracedWork() noexcept override = default;

  bool test() override {
    if (!work_.test()) return false;
    arrived(Clock::now());
    return true;
  }
  void wait() override {
    const auto start = Clock::now();
    if (work_.test()) return arrived(start);
    work_.wait();
    const auto end = Clock::now();
    trace_.add(Trace::Kind::wait, name_, start, end);
    arrived(end);
  }
  std::optional<Work::Travel> travel() const override { return travel_; }

 private:
  void arrived(Clock::time_point seen) {
    const auto [start, end] = travel_.value_or(Work::Travel{posted_, seen});
    trace_.add(Trace::Kind::transfer, name_, start, end);
  }

  Trace& trace_;
  std::string name_;
  Clock::time_point posted_;
  std::optional<Work::Travel> travel_;
  Work work_;
};

class TracedCommunicator final : public ForwardingCommunicator {
 public:
  TracedCommunicator(Communicator& inner, std::string_view label, Trace& trace)
      : ForwardingCommunicator(inner), label_(label), trace_(trace) {}
  TracedCommunicator(std::unique_ptr<Communicator> inner, std::string_view label, Trace& trace)
      : ForwardingCommunicator(std::move(inner)), label_(label), trace_(trace) {}

  void barrier() override {
    const TraceSpan span(&trace_, Trace::Kind::wait, "barrier");
    ForwardingCommunicator::barrier();
  }

 private:
  Work posted(const Operation& operation, Work work) override {
    if (!trace_.recording() || size() == 1) return work;
    return Work(std::make_unique<TracedWork>(
        trace_, concat(name_of(operation.collective), ' ', label_), std::move(work)));
  }
  std::unique_ptr<Communicator> around(std::unique_ptr<Communicator> part,
                                       std::string_view label) override {
    return std::make_unique<TracedCommunicator>(std::move(part), label, trace_);
  }

  std::string label_;
  Trace& trace_;
};

}  // namespace

std::unique_ptr<Communicator> trace_communicator(Communicator& inner, std::string_view label,
                                                 Trace& trace) {
  return std::make_unique<TracedCommunicator>(inner, label, trace);
}

}  // namespace convoy
