#include "experiments/fit/units.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

namespace convoy {
namespace {

using Key = std::tuple<std::string, std::string, double, double>;  // arm, size, N, D

std::map<Key, std::vector<const RunRow*>> grouped_by_unit(const std::vector<RunRow>& runs) {
  std::map<Key, std::vector<const RunRow*>> groups;
  for (const RunRow& run : runs) {
    const bool tokens_known = !std::isnan(run.N) && !std::isnan(run.D);
    const Key key =
        tokens_known ? Key{run.arch, run.size, run.N, run.D} : Key{run.arch, run.size, 0.0, run.C};
    groups[key].push_back(&run);
  }
  return groups;
}

Unit unit_of(const std::vector<const RunRow*>& runs) {
  const double n = static_cast<double>(runs.size());
  const RunRow& first = *runs.front();
  Unit unit{.arch = first.arch, .size = first.size, .N = first.N, .D = first.D};
  for (const RunRow* run : runs) {
    unit.C += run->C / n;
    unit.log_loss += std::log(run->loss) / n;
  }
  unit.seeds = static_cast<int>(runs.size());
  return unit;
}

}  // namespace

std::vector<Unit> seed_means(const std::vector<RunRow>& runs) {
  std::vector<Unit> units;
  for (const auto& [key, group] : grouped_by_unit(runs)) units.push_back(unit_of(group));
  std::stable_sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) {
    return std::tie(a.C, a.N) < std::tie(b.C, b.N);
  });
  return units;
}

double decades_of_compute(const std::vector<Unit>& units) {
  if (units.empty()) return 0;
  const auto [least, most] = std::minmax_element(
      units.begin(), units.end(), [](const Unit& a, const Unit& b) { return a.C < b.C; });
  return std::log10(most->C / least->C);
}

int distinct_sizes(const std::vector<Unit>& units) {
  std::set<std::string> sizes;
  for (const Unit& unit : units) sizes.insert(unit.size);
  return static_cast<int>(sizes.size());
}

std::optional<SeedNoise> seed_noise(const std::vector<RunRow>& runs) {
  double squares = 0;
  SeedNoise noise;
  for (const auto& [key, group] : grouped_by_unit(runs)) {
    const double mean = unit_of(group).log_loss;
    for (const RunRow* run : group) squares += std::pow(std::log(run->loss) - mean, 2);
    noise.freedom += static_cast<int>(group.size()) - 1;
  }
  if (noise.freedom == 0) return std::nullopt;
  noise.sd = std::sqrt(squares / noise.freedom);
  return noise;
}

}  // namespace convoy
