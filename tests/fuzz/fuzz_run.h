// Two steps of a case on the ranks at hand, and the comparison with one rank.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "tests/fuzz/fuzz_case.h"

namespace convoy::test {

// By global name, whole and row-major.
using WholeTensors = std::map<std::string, std::vector<double>>;

struct FuzzOutcome {
  std::vector<double> losses, norms;
  std::vector<WholeTensors> gradients;  // of each step, after all sums
  WholeTensors weights;                 // at the end
};

// Collective; the outcome is the same on every rank.
FuzzOutcome run_case(const RunConfig& config, Communicator& world);

// What differs, beyond what the case allows; none where nothing does.
std::optional<std::string> difference(const FuzzCase& fuzz, const FuzzOutcome& many,
                                      const FuzzOutcome& one);

}  // namespace convoy::test
