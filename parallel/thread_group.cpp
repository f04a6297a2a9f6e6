#include "parallel/thread_group.h"

#include <cstring>
#include <utility>

namespace convoy {

Staged::Staged(const Tensor& tensor)
    : bytes_(std::make_unique_for_overwrite<std::byte[]>(tensor.bytes())), size_(tensor.bytes()) {
  if (size_ > 0) std::memcpy(bytes_.get(), tensor.data(), size_);
}

void Staged::copy_to(const Tensor& out, std::size_t begin) const {
  CHECK(begin + out.bytes() <= size_, "bytes [", begin, ", ", begin + out.bytes(), ") of ", size_);
  if (out.bytes() > 0) std::memcpy(out.data(), data() + begin, out.bytes());
}

bool Staged::same_as(const Tensor& tensor) const {
  return size_ == 0 || std::memcmp(data(), tensor.data(), size_) == 0;
}

ThreadWorld::ThreadWorld(int ranks, const ThreadOptions& options)
    : options_(options), returned_(static_cast<std::size_t>(ranks)) {}

ThreadWorld::Clock::duration ThreadWorld::delay(std::size_t bytes) const {
  double seconds = options_.latency_s;
  if (options_.bytes_per_second > 0) {
    seconds += static_cast<double>(bytes) / options_.bytes_per_second;
  }
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

bool ThreadWorld::fail(int rank, const std::string& reason) {
  if (claimed_.exchange(true)) return false;
  failed_rank_ = rank;
  reason_ = reason;
  failed_ = true;
  wake_everyone();
  return true;
}

void ThreadWorld::leave(int rank) {
  returned_[static_cast<std::size_t>(rank)] = true;
  wake_everyone();
}

void ThreadWorld::refuse_if_failed() const {
  if (failed_) throw Error(concat("rank ", failed_rank_, " failed: ", reason_));
}

void ThreadWorld::enlist(std::weak_ptr<ThreadGroup> group) {
  const std::lock_guard lock(mutex_);
  std::erase_if(groups_, [](const auto& known) { return known.expired(); });
  groups_.push_back(std::move(group));
}

void ThreadWorld::wake_everyone() {
  std::vector<std::weak_ptr<ThreadGroup>> groups;
  {
    const std::lock_guard lock(mutex_);
    groups = groups_;
  }
  for (const auto& known : groups) {
    if (const auto group = known.lock()) group->wake_everyone();
  }
}

ThreadGroup::ThreadGroup(std::shared_ptr<ThreadWorld> world, std::string name,
                         std::vector<int> members)
    : world_(std::move(world)), name_(std::move(name)), members_(std::move(members)) {}

std::shared_ptr<ThreadGroup> ThreadGroup::subgroup(int colour, std::vector<int> ranks) const {
  for (int& rank : ranks) rank = world_rank(rank);
  auto group = std::make_shared<ThreadGroup>(world_, concat(name_, '/', colour), std::move(ranks));
  world_->enlist(group);
  return group;
}

std::shared_ptr<Meeting> ThreadGroup::join(int rank, std::uint64_t number, const std::string& what,
                                           Meeting::Part part) {
  const std::lock_guard lock(mutex_);
  auto& entry = open_[number];
  if (entry == nullptr) {
    entry = std::make_shared<Meeting>();
    entry->what = what;
    entry->parts.resize(members_.size());
    entry->here.resize(members_.size());
    entry->missing = size();
  }
  const auto meeting = entry;
  CHECK(meeting->what == what, "operation ", number, " of ", name_, " is ", what, " on rank ",
        world_rank(rank), " but ", meeting->what, " on another");
  meeting->parts[static_cast<std::size_t>(rank)] = std::move(part);
  meeting->here[static_cast<std::size_t>(rank)] = true;
  meeting->latest = ThreadWorld::Clock::now();
  if (--meeting->missing == 0) {
    open_.erase(number);
    meeting->complete.notify_all();
  }
  return meeting;
}

std::string ThreadGroup::absent(const Meeting& meeting) const {
  std::string ranks;
  for (int r = 0; r < size(); ++r) {
    if (!meeting.here[static_cast<std::size_t>(r)]) ranks += concat(' ', world_rank(r));
  }
  return ranks;
}

// An operation that can no longer complete, because a rank failed or has returned, is an error.
void ThreadGroup::refuse_if_hopeless(const Meeting& meeting) const {
  world_->refuse_if_failed();
  for (int r = 0; r < size(); ++r) {
    CHECK(meeting.here[static_cast<std::size_t>(r)] || !world_->has_left(world_rank(r)), "rank ",
          world_rank(r), " has returned without ", meeting.what, " of ", name_);
  }
}

bool ThreadGroup::is_complete(const Meeting& meeting) {
  const std::lock_guard lock(mutex_);
  if (meeting.missing > 0) refuse_if_hopeless(meeting);
  return meeting.missing == 0;
}

ThreadWorld::Clock::time_point ThreadGroup::deadline() const {
  return ThreadWorld::Clock::now() +
         std::chrono::duration_cast<ThreadWorld::Clock::duration>(
             std::chrono::duration<double>(world_->options().deadline_s));
}

void ThreadGroup::await(Meeting& meeting) {
  const auto until = deadline();
  std::unique_lock lock(mutex_);
  while (meeting.missing > 0) {
    refuse_if_hopeless(meeting);
    const bool late = meeting.complete.wait_until(lock, until) == std::cv_status::timeout;
    CHECK(!late || meeting.missing == 0, meeting.what, " of ", name_, " waited ",
          world_->options().deadline_s, " s for rank", absent(meeting));
  }
}

void ThreadGroup::post(const Address& address, std::shared_ptr<const Letter> letter) {
  const std::lock_guard lock(mutex_);
  letters_.emplace(address, std::move(letter));
  letter_came_.notify_all();
}

std::shared_ptr<const Letter> ThreadGroup::take(const Address& address) {
  const auto place = letters_.find(address);
  if (place != letters_.end()) {
    auto letter = place->second;
    letters_.erase(place);
    return letter;
  }
  world_->refuse_if_failed();
  const int source = world_rank(std::get<0>(address));
  CHECK(!world_->has_left(source), "rank ", source, " has returned without sending message ",
        std::get<2>(address), " to rank ", world_rank(std::get<1>(address)), " of ", name_);
  return nullptr;
}

std::shared_ptr<const Letter> ThreadGroup::collect(const Address& address) {
  const std::lock_guard lock(mutex_);
  return take(address);
}

std::shared_ptr<const Letter> ThreadGroup::await_letter(const Address& address) {
  const auto until = deadline();
  std::unique_lock lock(mutex_);
  bool late = false;
  for (;;) {
    if (auto letter = take(address)) return letter;
    CHECK(!late, "message ", std::get<2>(address), " of rank ", world_rank(std::get<0>(address)),
          " to rank ", world_rank(std::get<1>(address)), " of ", name_, " did not come within ",
          world_->options().deadline_s, " s");
    late = letter_came_.wait_until(lock, until) == std::cv_status::timeout;
  }
}

void ThreadGroup::wake_everyone() {
  const std::lock_guard lock(mutex_);
  for (const auto& [number, meeting] : open_) meeting->complete.notify_all();
  letter_came_.notify_all();
}

}  // namespace convoy
