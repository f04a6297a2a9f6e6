// Trace: what one rank did and when. A backend records its operations in it, a traced communicator
// what was in flight and how long the rank was blocked; whoever runs a schedule, its actions.
// Nothing is recorded outside of begin and end, where a span costs one comparison.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace convoy {

class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  enum class Kind : std::uint8_t {
    action,     // of a pipeline schedule; operations and waits lie inside
    operation,  // of a backend
    wait,       // the rank is blocked
    transfer,   // in flight
  };
  struct Span {
    Kind kind;
    std::string name;
    double start, end;  // seconds from begin()

    double seconds() const { return end - start; }
  };

  // Drops what was recorded before. Spans that reach past end() are kept.
  void begin() {
    spans_.clear();
    origin_ = Clock::now();
    recording_ = true;
  }
  void end() { recording_ = false; }
  bool recording() const { return recording_; }

  void add(Kind kind, std::string_view name, Clock::time_point start, Clock::time_point end) {
    if (!recording_) return;
    spans_.push_back({kind, std::string(name), since_origin(start), since_origin(end)});
  }

  const std::vector<Span>& spans() const { return spans_; }
  double total(Kind kind) const {
    double seconds = 0;
    for (const Span& span : spans_) seconds += span.kind == kind ? span.seconds() : 0;
    return seconds;
  }

 private:
  double since_origin(Clock::time_point time) const {
    return std::chrono::duration<double>(time - origin_).count();
  }

  bool recording_ = false;
  Clock::time_point origin_;
  std::vector<Span> spans_;
};

// Records the scope it lives in. `trace` may be null.
class TraceSpan {
 public:
  TraceSpan(Trace* trace, Trace::Kind kind, std::string_view name)
      : trace_(trace != nullptr && trace->recording() ? trace : nullptr), kind_(kind), name_(name) {
    if (trace_ != nullptr) start_ = Trace::Clock::now();
  }
  ~TraceSpan() {
    if (trace_ != nullptr) trace_->add(kind_, name_, start_, Trace::Clock::now());
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  Trace* trace_;
  Trace::Kind kind_;
  std::string_view name_;
  Trace::Clock::time_point start_;
};

}  // namespace convoy
