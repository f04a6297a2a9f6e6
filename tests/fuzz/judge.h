// Two steps of a case on its layout against the same on one rank.
#pragma once

#include <optional>
#include <string>

#include "tests/fuzz/fuzz_case.h"
#include "tests/launch/training_trace.h"

namespace convoy::test {

// Losses, every gradient tensor of every step, norms and final weights. Collective; the trace is
// the same on every rank.
TrainingTrace run_case(const RunConfig& config, Communicator& world);

// What differs, beyond what the case allows; none where nothing does.
std::optional<std::string> difference(const FuzzCase& fuzz, const TrainingTrace& many,
                                      const TrainingTrace& one);

}  // namespace convoy::test
