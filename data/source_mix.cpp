#include "data/source_mix.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "data/sample_order.h"

namespace convoy {
namespace {

// Shares of `total` places that add up to it: rounded down, then one more for the largest
// remainders (the first of equal ones).
std::vector<std::int64_t> largest_remainder(std::span<const double> weights, std::int64_t total) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int64_t> places;
  std::vector<double> remainders;
  for (const double weight : weights) {
    const double exact = weight / sum * static_cast<double>(total);
    places.push_back(static_cast<std::int64_t>(std::floor(exact)));
    remainders.push_back(exact - std::floor(exact));
  }
  std::int64_t left = total - std::accumulate(places.begin(), places.end(), std::int64_t{0});
  for (; left > 0; --left) {
    const auto largest = std::max_element(remainders.begin(), remainders.end());
    ++places[static_cast<std::size_t>(largest - remainders.begin())];
    *largest = -1;
  }
  return places;
}

}  // namespace

SourceMix::SourceMix(std::span<const double> weights, std::uint64_t seed) {
  for (const double weight : weights)
    if (!(weight > 0) || !std::isfinite(weight))
      throw Error(concat("data.mix has the weight ", weight, "; weights must be positive"));
  places_ = largest_remainder(weights, kPeriod);
  for (std::size_t source = 0; source < places_.size(); ++source)
    if (places_[source] == 0)
      throw Error(concat("data.mix gives source ", source + 1, " the weight ", weights[source],
                         ", less than one sample in ", kPeriod, "; raise it or leave it out"));
  std::vector<int> sorted;  // the sources of a period, before shuffling
  for (std::size_t source = 0; source < places_.size(); ++source)
    sorted.insert(sorted.end(), static_cast<std::size_t>(places_[source]),
                  static_cast<int>(source));
  std::vector<std::int64_t> used(places_.size(), 0);
  for (std::int64_t i = 0; i < kPeriod; ++i) {
    const int source = sorted[static_cast<std::size_t>(permuted(i, kPeriod, seed))];
    pattern_.push_back({source, used[static_cast<std::size_t>(source)]++});
  }
}

SourceMix::Sample SourceMix::sample(std::int64_t global_index) const {
  const Sample& place = pattern_[static_cast<std::size_t>(global_index % kPeriod)];
  return {place.source, global_index / kPeriod * places(place.source) + place.index};
}

}  // namespace convoy
