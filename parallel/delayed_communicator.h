// A communicator with a slow link, for measuring on few cores what a network would let a schedule
// hide. An operation sets out when it is posted, or when the one before it on the link is there,
// and arrives after latency + bytes / rate. Waiting for it costs no CPU time.
#pragma once

#include <memory>
#include <optional>

#include "parallel/communication_log.h"
#include "parallel/communicator.h"

namespace convoy {

// One rank's way to all others. It outlives the communicators that use it.
class Link {
 public:
  double latency_s = 0;
  double bytes_per_second = 0;     // 0: no limit
  std::optional<Collective> only;  // other operations travel in no time

  Work::Travel send(Collective collective, std::size_t bytes);

  // What has been sent since the last restart.
  std::size_t bytes() const { return bytes_; }
  double seconds() const { return seconds_; }
  void restart();

 private:
  std::size_t bytes_ = 0;
  double seconds_ = 0;
  std::chrono::steady_clock::time_point free_;
};

// What is split from it is delayed too, on the same link.
std::unique_ptr<Communicator> delay(Communicator& inner, Link& link);

}  // namespace convoy
