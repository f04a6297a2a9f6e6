// How many positions of a run's windows have a label, and what its training costs for that: the
// head works on these positions alone.
#pragma once

#include "launch/config.h"
#include "models/accounting.h"

namespace convoy {

// The most labels a window of the run's data has: the pairs of associative recall; model.seq_len
// where any of them are a file, and then the head works on all positions.
std::int64_t labels_of_window(const RunConfig& config);

// The share of the positions that the head works on in training.
double labelled_share(const RunConfig& config);

// FLOPs per token of training a run (models/accounting.h).
FlopParts training_flops_per_token(const RunConfig& config);
double training_flops_per_token(const RunConfig& config, const std::string& convention);

}  // namespace convoy
