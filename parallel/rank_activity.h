// What one rank is doing in its communicators: how many operations it has posted in each group and
// which one it is waiting in. The rank writes it (a short lock per operation), a Watchdog reads it
// and leaves a copy where the other ranks' watchdogs find it.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communication_log.h"

namespace convoy {

struct RankPosition {
  struct Wait {
    Collective collective;
    std::uint64_t number;  // counts the group's operations from 0
    std::string group;
    std::vector<int> peers;  // the ranks it depends on; empty: not known, any of them
    std::chrono::steady_clock::time_point since;
  };
  int rank = 0;
  std::map<std::string, std::uint64_t> posted;  // operations, by group
  std::optional<Wait> wait;                     // none: it computes
  std::string breadcrumb;                       // when it last posted or began to wait
};

class RankActivity {
 public:
  explicit RankActivity(int rank) { position_.rank = rank; }
  int rank() const { return position_.rank; }

  // The number of the operation that is now posted in `group`.
  std::uint64_t post(std::string_view group);
  void begin_wait(Collective collective, std::uint64_t number, std::string_view group,
                  const std::vector<int>& peers);
  void end_wait();
  RankPosition position() const;

 private:
  mutable std::mutex mutex_;
  RankPosition position_;
};

}  // namespace convoy
