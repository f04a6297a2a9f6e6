#include "parallel/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "core/error.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr double kStill = 4;  // periods without a look: the process stood still

constexpr const char* kComputing = "computing";

// How often a position is written: often enough for its age to mean something at the deadline.
double period_for(double deadline_s) { return std::min(1.0, deadline_s / 8); }

double wall_clock_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

fs::path file_of(const fs::path& directory, int rank) { return directory / concat("rank_", rank); }

std::string operation(const RankPosition::Wait& wait) {
  return concat(name_of(wait.collective), ' ', wait.number, " of ", wait.group);
}

std::string one_decimal(double seconds) {
  std::ostringstream text;
  text.precision(1);
  text << std::fixed << seconds << " s";
  return text.str();
}

std::string listed(const std::vector<int>& ranks) {
  std::string text;
  for (const int rank : ranks) text += concat(text.empty() ? "" : ", ", rank);
  return text;
}

std::uint64_t posted_in(const PositionFile& file, const std::string& group) {
  const auto place = file.posted.find(group);
  return place == file.posted.end() ? 0 : place->second;
}

// Numbers of operations compare only where all ranks post the same ones: not for messages.
bool may_be_behind(const PositionFile& file, const RankPosition::Wait& wait) {
  return wait.collective == Collective::exchange || posted_in(file, wait.group) <= wait.number;
}

std::string described(const std::optional<PositionFile>& file, const RankPosition::Wait& wait) {
  if (!file) return "has left no position: not started, or ended";
  std::string text =
      concat("has posted ", posted_in(*file, wait.group), " operations of ", wait.group, ", ",
             file->doing, "; last seen ", one_decimal(file->age_s), " ago");
  if (!file->breadcrumb.empty()) text += "; while: " + file->breadcrumb;
  return text;
}

// The ranks to blame, by how sure that is.
struct Suspects {
  std::vector<int> silent;   // no news: stopped, killed or cut off
  std::vector<int> busy;     // behind, and in no operation
  std::vector<int> waiting;  // behind, and waiting for someone else

  std::string describe() const {
    if (!silent.empty()) return "rank " + listed(silent) + " (stopped, killed or cut off)";
    if (!busy.empty()) return "rank " + listed(busy) + " (behind, and in no operation)";
    if (!waiting.empty()) return "rank " + listed(waiting) + " (behind, and waiting itself)";
    return "no rank is behind: the transport itself hangs";
  }
};

}  // namespace

Watchdog::Watchdog(WatchdogOptions options, int world_size, Print print, End end_all_ranks)
    : options_(std::move(options)),
      period_s_(period_for(options_.deadline_s)),
      world_size_(world_size),
      print_(std::move(print)),
      end_all_ranks_(std::move(end_all_ranks)) {
  if (!(options_.deadline_s > 0)) {
    throw Error(
        concat("a deadline of ", options_.deadline_s, " s ends every run: give more than 0"));
  }
  fs::create_directories(options_.directory);
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_asked_.notify_all();
  thread_.join();
  std::error_code ignored;  // the files are only of use to a run that goes on
  for (const auto& rank : ranks_) fs::remove(file_of(options_.directory, rank.rank()), ignored);
  fs::remove(options_.directory, ignored);  // the last rank to leave succeeds
}

RankActivity& Watchdog::watch(int rank) {
  const std::lock_guard lock(mutex_);
  RankActivity& activity = ranks_.emplace_back(rank);
  write_position(activity.position());
  return activity;
}

void Watchdog::run() {
  const std::chrono::duration<double> period(period_s_);
  std::unique_lock lock(mutex_);
  awake_since_ = Clock::now();
  for (auto last = awake_since_; !stopping_;) {
    if (seconds_since(last) > kStill * period_s_) awake_since_ = Clock::now();
    last = Clock::now();
    if (!look()) {
      // Unlocked: a destructor must not wait for the grace to pass before it can ask to stop.
      stop_asked_.wait_for(lock, std::chrono::duration<double>(options_.grace_s),
                           [this] { return stopping_; });
      lock.unlock();
      return end_all_ranks_();
    }
    stop_asked_.wait_for(lock, period, [this] { return stopping_; });
  }
}

double Watchdog::waited_s(const RankPosition::Wait& wait) const {
  return seconds_since(std::max(wait.since, awake_since_));
}

bool Watchdog::look() {
  for (const auto& activity : ranks_) {
    const RankPosition position = activity.position();
    write_position(position);
    if (position.wait && waited_s(*position.wait) > options_.deadline_s) {
      print_(report(position));
      return false;
    }
  }
  return true;
}

void Watchdog::write_position(const RankPosition& position) const {
  const fs::path name = file_of(options_.directory, position.rank);
  const fs::path temporary = name.string() + ".new";
  {
    std::ofstream out(temporary);
    out.precision(17);
    out << "time " << wall_clock_s() << '\n';
    for (const auto& [group, posted] : position.posted) {
      out << "posted " << posted << ' ' << group << '\n';
    }
    const bool waits = position.wait.has_value();
    out << "doing " << (waits ? "waiting in " + operation(*position.wait) : kComputing) << '\n';
    if (!position.breadcrumb.empty()) out << "breadcrumb " << position.breadcrumb << '\n';
  }
  std::error_code ignored;  // a full disk must not end the run; the file's age will show it
  fs::rename(temporary, name, ignored);
}

std::optional<PositionFile> Watchdog::read_position(int rank) const {
  std::ifstream in(file_of(options_.directory, rank));
  if (!in) return std::nullopt;
  PositionFile position;
  for (std::string key; in >> key;) {
    if (key == "time") {
      double written = 0;
      in >> written;
      position.age_s = wall_clock_s() - written;
    } else if (key == "posted") {
      std::uint64_t count = 0;
      std::string group;
      in >> count >> group;
      position.posted[group] = count;
    } else {
      std::getline(in >> std::ws, key == "doing" ? position.doing : position.breadcrumb);
    }
  }
  return position;
}

std::string Watchdog::report(const RankPosition& position) const {
  const RankPosition::Wait& wait = *position.wait;
  const double silence_s = std::max(4 * period_s_, options_.deadline_s / 2);
  std::string text =
      concat("watchdog: rank ", position.rank, " has waited ", one_decimal(waited_s(wait)), " in ",
             operation(wait), wait.peers.empty() ? "" : " between ranks ", listed(wait.peers),
             "; the deadline is ", one_decimal(options_.deadline_s), '\n');
  if (!position.breadcrumb.empty()) text += "  while: " + position.breadcrumb + '\n';
  Suspects suspects;
  for (int rank = 0; rank < world_size_; ++rank) {
    if (rank == position.rank) continue;
    const bool is_peer = wait.peers.empty() ||
                         std::find(wait.peers.begin(), wait.peers.end(), rank) != wait.peers.end();
    const auto file = read_position(rank);
    const bool silent = !file || file->age_s > silence_s;
    if (silent || is_peer) text += concat("  rank ", rank, ": ", described(file, wait), '\n');
    if (silent) {
      suspects.silent.push_back(rank);
    } else if (is_peer && may_be_behind(*file, wait)) {
      (file->doing == kComputing ? suspects.busy : suspects.waiting).push_back(rank);
    }
  }
  return text + "  suspect: " + suspects.describe() + '\n';
}

void print_to_stderr(const std::string& report) {
  std::size_t done = 0;
  while (done < report.size()) {
    const auto written = ::write(STDERR_FILENO, report.data() + done, report.size() - done);
    if (written <= 0) return;
    done += static_cast<std::size_t>(written);
  }
}

}  // namespace convoy
