// Which arm has the lower loss, pair by pair, at one size and over all sizes: a pair is ordered
// only where the 95 % interval of its paired difference excludes 0, otherwise it is tied.
#pragma once

#include <string>
#include <vector>

#include "experiments/fit/table.h"
#include "experiments/statistics.h"

namespace convoy {

struct OrderedPair {
  std::string better;  // expected to have the lower loss
  std::string worse;
  std::string size;          // empty: over all sizes, where a size's mean over seeds is the unit
  Estimate difference = {};  // loss of `worse` minus loss of `better`, nats; paired by seed
  std::string verdict = {};  // ordered, reversed, tied, or "one seed: no spread"
  double flops_ratio = 1;    // worse over better, mean over the pairs
};

// Runs are those of screen(). `expected` lists arms from the lowest loss to the highest; where it
// is empty, the order is that of the arms' mean loss at the sizes they share. Throws Error on an
// arm that the table lacks. Pairs without a common size and seed are left out.
std::vector<OrderedPair> orderings(const std::vector<RunRow>& runs,
                                   std::vector<std::string> expected);

}  // namespace convoy
