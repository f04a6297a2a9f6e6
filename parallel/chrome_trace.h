// Google's "Trace Event Format", which chrome://tracing and ui.perfetto.dev open: complete events
// (ph X) with times in microseconds, metadata events (ph M) for names. A rank is a process, its
// lanes are threads.
#pragma once

#include <string>
#include <string_view>

#include "core/trace.h"

namespace convoy {

class ChromeTrace {
 public:
  void process(int rank);
  void lane(int rank, int lane, std::string_view name);
  void span(int rank, int lane, std::string_view category, std::string_view name,
            double start_microseconds, double microseconds);
  // A rank's trace: actions, operations and waits in one lane, where they nest; transfers in as
  // many others as were in flight at once.
  void rank(int rank, const Trace& trace);

  // Events as lines without an end; those of several ranks are joined by kSeparator.
  static constexpr std::string_view kSeparator = ",\n";
  const std::string& events() const { return events_; }
  static std::string document(std::string_view events);

 private:
  void put(const std::string& event);
  std::string events_;
};

}  // namespace convoy
