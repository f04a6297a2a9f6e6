// SampleOrder: which window is sample i, as a function of (seed, i) alone. Sample i belongs to
// epoch i / windows, and each epoch is its own pseudo-random permutation of the windows. Nothing
// is stored or drawn in turn, so any number of ranks, and a resumed run, see the same samples.
#pragma once

#include <cstdint>

namespace convoy {

// A pseudo-random permutation of [0, size), for each key another, evaluated at `index` in O(1).
std::int64_t permuted(std::int64_t index, std::int64_t size, std::uint64_t key);

class SampleOrder {
 public:
  SampleOrder(std::uint64_t seed, std::int64_t windows);
  std::int64_t window(std::int64_t sample) const;

 private:
  std::uint64_t seed_;
  std::int64_t windows_;
};

}  // namespace convoy
