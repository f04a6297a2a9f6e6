#include "parallel/schedule/blocking.h"

#include <string>

#include "core/error.h"
#include "parallel/schedule/text.h"

namespace convoy {
namespace {

class BlockingRun {
 public:
  explicit BlockingRun(const Schedule& schedule)
      : schedule_(schedule), at_(schedule.actions.size(), 0) {}

  // Returns whether all ranks reached the end of their lists.
  bool run() {
    for (bool progress = true; progress;) {
      progress = false;
      for (int rank = 0; rank < schedule_.shape.ranks; ++rank) {
        while (pass(rank)) progress = true;
      }
    }
    for (int rank = 0; rank < schedule_.shape.ranks; ++rank) {
      if (!ended(rank)) return false;
    }
    return true;
  }

  std::string describe() const {
    std::string text;
    for (int rank = 0; rank < schedule_.shape.ranks; ++rank) {
      if (ended(rank)) continue;
      const int peer = peer_of(rank);
      text += concat(text.empty() ? "" : "; ", "rank ", rank, " waits in ", to_text(here(rank)),
                     " (action ", at_[rank], ") for rank ", peer, " to reach ",
                     to_text(counterpart(here(rank))));
      text += ended(peer) ? ", which has ended" : ", which is at " + to_text(here(peer));
    }
    return text;
  }

 private:
  const Action& here(int rank) const { return schedule_.actions[rank][at_[rank]]; }
  bool ended(int rank) const { return at_[rank] == schedule_.actions[rank].size(); }
  int peer_of(int rank) const { return schedule_.shape.rank_of(counterpart(here(rank)).stage); }

  // Whether the rank's action could be done; both sides of a transfer are done at once.
  bool pass(int rank) {
    if (ended(rank)) return false;
    if (is_transfer(here(rank).op)) {
      const int peer = peer_of(rank);
      if (ended(peer) || here(peer) != counterpart(here(rank))) return false;
      ++at_[peer];
    }
    ++at_[rank];
    return true;
  }

  const Schedule& schedule_;
  std::vector<std::size_t> at_;  // [rank]
};

}  // namespace

void check_no_deadlock(const Schedule& schedule) {
  BlockingRun run(schedule);
  if (run.run()) return;
  throw Error(concat("schedule ", name_of(schedule.shape.kind), ": deadlock: ", run.describe()));
}

}  // namespace convoy
