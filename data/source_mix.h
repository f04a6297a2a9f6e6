// SourceMix: which of several sources a sample comes from, and its index within that source, both
// an O(1) function of the global index. A seeded pattern of 1024 samples repeats; in it, source s
// has its share of places by the largest remainder.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace convoy {

class SourceMix {
 public:
  static constexpr std::int64_t kPeriod = 1024;

  // Weights are relative. One that is not positive, or too small for one place in the pattern, is
  // an Error.
  SourceMix(std::span<const double> weights, std::uint64_t seed);

  struct Sample {
    int source;
    std::int64_t index;  // of the sample within its source
  };
  Sample sample(std::int64_t global_index) const;

  std::int64_t places(int source) const { return places_[static_cast<std::size_t>(source)]; }

 private:
  std::vector<std::int64_t> places_;  // [sources] per period; adds up to kPeriod
  std::vector<Sample> pattern_;       // [kPeriod]
};

}  // namespace convoy
