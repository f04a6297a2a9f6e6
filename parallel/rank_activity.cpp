#include "parallel/rank_activity.h"

#include "core/error.h"

namespace convoy {

std::uint64_t RankActivity::post(std::string_view group) {
  std::string breadcrumb = Doing::breadcrumb();
  const std::lock_guard lock(mutex_);
  position_.breadcrumb = std::move(breadcrumb);
  return position_.posted[std::string(group)]++;
}

void RankActivity::begin_wait(Collective collective, std::uint64_t number, std::string_view group,
                              const std::vector<int>& peers) {
  RankPosition::Wait wait{collective, number, std::string(group), peers,
                          std::chrono::steady_clock::now()};
  std::string breadcrumb = Doing::breadcrumb();
  const std::lock_guard lock(mutex_);
  position_.wait = std::move(wait);
  position_.breadcrumb = std::move(breadcrumb);
}

void RankActivity::end_wait() {
  const std::lock_guard lock(mutex_);
  position_.wait.reset();
}

RankPosition RankActivity::position() const {
  const std::lock_guard lock(mutex_);
  return position_;
}

}  // namespace convoy
