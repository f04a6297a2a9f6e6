#include "core/recorded_region.h"

#include <algorithm>
#include <utility>

namespace convoy {

RecordedRegion::RecordedRegion(Backend& backend, std::string why_not)
    : backend_(backend), records_(backend.can_record() && why_not.empty()) {
  if (backend.can_record()) status_ = std::move(why_not);
}

void RecordedRegion::run(const Shape& shape, const std::function<void()>& body) {
  replayed_ = false;
  if (!records_) return body();
  Entry& entry = entry_of(shape);
  if (entry.recording && !entry.recording->is_current()) entry.recording.reset();
  if (!entry.recording) {
    if (entry.plain_runs < kPlainRuns) {
      ++entry.plain_runs;
      return body();
    }
    if (!record(entry, body)) return body();
  }
  entry.recording->replay();
  replayed_ = true;
}

RecordedRegion::Entry& RecordedRegion::entry_of(const Shape& shape) {
  const auto place = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.shape == shape; });
  if (place == entries_.end()) {
    if (entries_.size() == kShapes) entries_.pop_back();
    entries_.insert(entries_.begin(), Entry{shape, 0, nullptr});
  } else {
    std::rotate(entries_.begin(), place, place + 1);
  }
  return entries_.front();
}

// What cannot be recorded once is not tried again.
bool RecordedRegion::record(Entry& entry, const std::function<void()>& body) {
  try {
    entry.recording = backend_.record(body);
  } catch (const Error& error) {
    records_ = false;
    status_ = error.what();
    entries_.clear();
    return false;
  }
  status_ = entry.recording->description();
  return true;
}

}  // namespace convoy
