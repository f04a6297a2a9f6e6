// The hang watchdog: ends a run in which a rank waits for others longer than a deadline, after
// saying who is to blame. A thread of this process looks at the activity of its ranks now and then
// and writes each rank's position to a small file in a directory that all ranks share, by temporary
// name and rename, so that it also works on a network file system. The operations themselves only
// note their position in memory. When a wait exceeds the deadline, the peers' files tell whose
// position is behind, and the age of a file tells a stopped or dead rank from a busy one. A job
// that stood still as a whole (suspended, a laptop asleep) and goes on has not waited meanwhile.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "parallel/rank_activity.h"

namespace convoy {

// What a rank's file says of it.
struct PositionFile {
  double age_s = 0;  // since it was written, by the wall clock
  std::map<std::string, std::uint64_t> posted;
  std::string doing;  // "waiting in all_reduce 12 of world" or "computing"
  std::string breadcrumb;
};

struct WatchdogOptions {
  std::filesystem::path directory;  // of the position files; made where it is missing
  double deadline_s = 600;
  double grace_s = 1;  // between the report and the end, so that other ranks report too
};

class Watchdog {
 public:
  using Print = std::function<void(const std::string& report)>;
  using End = std::function<void()>;

  // `world_size`: all ranks of the run. When a wait exceeds the deadline, calls `print` once with
  // the report and after the grace `end_all_ranks` once, both on the watchdog's thread.
  Watchdog(WatchdogOptions options, int world_size, Print print, End end_all_ranks);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // The activity of a rank of this process, for instrument(); lives as long as the watchdog.
  RankActivity& watch(int rank);

 private:
  void run();
  bool look();  // false once a hang was reported
  double waited_s(const RankPosition::Wait& wait) const;
  void write_position(const RankPosition& position) const;
  std::optional<PositionFile> read_position(int rank) const;
  std::string report(const RankPosition& position) const;

  const WatchdogOptions options_;
  const double period_s_;
  const int world_size_;
  const Print print_;
  const End end_all_ranks_;
  std::mutex mutex_;
  std::condition_variable stop_asked_;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point awake_since_;  // when the process last stood still
  std::list<RankActivity> ranks_;
  std::thread thread_;  // last: it uses all of the above
};

// The report as one write to the standard error.
void print_to_stderr(const std::string& report);

}  // namespace convoy
