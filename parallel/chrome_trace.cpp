#include "parallel/chrome_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

namespace convoy {
namespace {

constexpr double kMicroseconds = 1e6;
constexpr std::array<std::string_view, 4> kKindNames = {"action", "operation", "wait", "transfer"};

}  // namespace

void ChromeTrace::put(const std::string& event) {
  if (!events_.empty()) events_ += kSeparator;
  events_ += event;
}

void ChromeTrace::process(int rank) {
  put(fmt::format(R"({{"ph": "M", "name": "process_name", "pid": {0}, )"
                  R"("args": {{"name": "rank {0}"}}}})",
                  rank));
}

void ChromeTrace::lane(int rank, int lane, std::string_view name) {
  put(fmt::format(R"({{"ph": "M", "name": "thread_name", "pid": {}, "tid": {}, )"
                  R"("args": {{"name": "{}"}}}})",
                  rank, lane, name));
}

void ChromeTrace::span(int rank, int lane, std::string_view category, std::string_view name,
                       double start_microseconds, double microseconds) {
  put(fmt::format(R"({{"ph": "X", "name": "{}", "cat": "{}", "pid": {}, "tid": {}, )"
                  R"("ts": {:.3f}, "dur": {:.3f}}})",
                  name, category, rank, lane, start_microseconds, microseconds));
}

void ChromeTrace::rank(int rank, const Trace& trace) {
  process(rank);
  lane(rank, 0, "compute");
  std::vector<const Trace::Span*> spans;
  for (const auto& span : trace.spans()) spans.push_back(&span);
  std::stable_sort(spans.begin(), spans.end(),
                   [](const auto* a, const auto* b) { return a->start < b->start; });
  std::vector<double> busy_until;  // of each lane of transfers
  for (const auto* span : spans) {
    std::size_t place = 0;
    if (span->kind == Trace::Kind::transfer) {
      while (place < busy_until.size() && busy_until[place] > span->start) ++place;
      if (place == busy_until.size()) {
        busy_until.push_back(0);
        lane(rank, static_cast<int>(place) + 1, "communication");
      }
      busy_until[place++] = span->end;
    }
    this->span(rank, static_cast<int>(place), kKindNames.at(static_cast<std::size_t>(span->kind)),
               span->name, kMicroseconds * span->start, kMicroseconds * span->seconds());
  }
}

std::string ChromeTrace::document(std::string_view events) {
  return fmt::format("{{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n{}\n]}}\n", events);
}

}  // namespace convoy
