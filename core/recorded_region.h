// RecordedRegion: a piece of work that is done again and again, the same operations on the same
// memory. The first times it just runs, so that a backend's libraries, tables and workspace settle;
// then the backend records it (Backend::record), and from there on the host asks for all of it at
// once, as long as what shapes it stays as it was. A backend that cannot record runs it every time.
//
// What differs from run to run must lie in the device's memory: written before the region, read
// after it. Inside, nothing is copied from or to the host, allocated or waited for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"

namespace convoy {

class RecordedRegion {
 public:
  static constexpr int kPlainRuns = 2;       // of a shape, before it is recorded
  static constexpr std::size_t kShapes = 4;  // that are kept, those used last

  // Whatever the work branches on beside its memory, which stays where it is: counts, choices.
  using Shape = std::vector<std::int64_t>;

  // `why_not`: the reason not to record on a backend that could; empty: record.
  explicit RecordedRegion(Backend& backend, std::string why_not = {});

  // Does the work. `body` may be left uncalled; whatever it changes on the host, other than what
  // its next run sets anew, would be left undone then.
  void run(const Shape& shape, const std::function<void()>& body);

  bool replayed() const { return replayed_; }  // in the last run
  // What was recorded, or why nothing is; empty before it is known and where nothing could be.
  const std::string& status() const { return status_; }

 private:
  struct Entry {
    Shape shape;
    int plain_runs = 0;
    std::unique_ptr<Recording> recording;
  };

  Entry& entry_of(const Shape& shape);
  bool record(Entry& entry, const std::function<void()>& body);

  Backend& backend_;
  bool records_;
  bool replayed_ = false;
  std::string status_;
  std::vector<Entry> entries_;  // the one used last first
};

}  // namespace convoy
