#include <algorithm>
#include <limits>
#include <map>

#include "core/error.h"
#include "parallel/schedule/passes.h"

namespace convoy {
namespace {

// Places in a list of actions at which a whole-stage action goes in, by the index in the list
// before which it stands.
using Insertions = std::multimap<std::size_t, Action>;

std::vector<Action> insert(const std::vector<Action>& list, const Insertions& insertions) {
  std::vector<Action> result;
  for (std::size_t i = 0; i <= list.size(); ++i) {
    const auto [first, last] = insertions.equal_range(i);
    for (auto it = first; it != last; ++it) result.push_back(it->second);
    if (i < list.size()) result.push_back(list[i]);
  }
  return result;
}

std::vector<std::size_t> compute_places(const std::vector<Action>& list) {
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (is_compute(list[i].op)) places.push_back(i);
  }
  return places;
}

// The stretches [first, last], in compute actions, over which a stage's weights are held.
struct Stretch {
  std::size_t first, last;
};

std::vector<Stretch> stretches(const std::vector<Action>& list,
                               const std::vector<std::size_t>& compute, int stage,
                               std::size_t keep) {
  std::vector<Stretch> held;
  for (std::size_t k = 0; k < compute.size(); ++k) {
    if (list[compute[k]].stage != stage) continue;
    const bool resident = !held.empty() && k - held.back().last - 1 <= keep;
    if (resident) {
      held.back().last = k;
    } else {
      held.push_back({k, k});
    }
  }
  return held;
}

Insertions gathers_of_rank(const std::vector<Action>& list, const std::vector<int>& stages,
                           const GatherOptions& options) {
  const auto compute = compute_places(list);
  const auto prefetch = static_cast<std::size_t>(options.prefetch);
  const auto keep = options.keep < 0 ? std::numeric_limits<std::size_t>::max()
                                     : static_cast<std::size_t>(options.keep);
  Insertions releases, gathers;
  for (const int stage : stages) {
    std::size_t free_from = 0;  // a gather may not overtake the release before it
    for (const auto [first, last] : stretches(list, compute, stage, keep)) {
      const std::size_t start = std::max(first > prefetch ? first - prefetch : 0, free_from);
      gathers.insert({compute[start], {Op::gather_weights, stage}});
      releases.insert({compute[last] + 1, {Op::release_weights, stage}});
      free_from = last + 1;
    }
  }
  releases.insert(gathers.begin(), gathers.end());  // at one place memory is freed first
  return releases;
}

}  // namespace

Schedule add_weight_gathers(const Schedule& schedule, const GatherOptions& options) {
  CHECK(options.prefetch >= 0, "a prefetch distance of ", options.prefetch);
  Schedule result{schedule.shape, {}};
  for (int rank = 0; rank < schedule.shape.ranks; ++rank) {
    const auto& list = schedule.actions[rank];
    result.actions.push_back(
        insert(list, gathers_of_rank(list, schedule.shape.stages_of(rank), options)));
  }
  return result;
}

Schedule add_gradient_reductions(const Schedule& schedule) {
  Schedule result{schedule.shape, {}};
  for (const auto& list : schedule.actions) {
    std::map<int, std::size_t> last;  // stage -> index of its last B or W
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (ends_slot(list[i].op)) last[list[i].stage] = i;
    }
    Insertions insertions;
    for (const auto& [stage, i] : last) insertions.insert({i + 1, {Op::reduce_gradients, stage}});
    result.actions.push_back(insert(list, insertions));
  }
  return result;
}

}  // namespace convoy
