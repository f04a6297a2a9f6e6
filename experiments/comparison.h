// What a set of runs says: finished runs grouped into arms, the spread over seeds, and the paired
// differences against the first arm. Runs that cannot be compared are named with the reason.
#pragma once

#include <string>
#include <vector>

#include "experiments/run_record.h"
#include "experiments/statistics.h"

namespace convoy {

// The finished runs of one architecture, by seed; indices into Comparison::runs.
struct Arm {
  std::string label;
  std::vector<std::size_t> runs = {};
  Estimate loss = {};  // final validation loss, nats per token
  Estimate bits_per_byte = {};
  Estimate tokens_per_s = {};
  Estimate flops = {};  // of training
};

// Arm minus reference, each pair with the same seed.
struct PairedDifference {
  std::string arm;
  std::string reference;
  Estimate loss = {};
  Estimate bits_per_byte = {};
  double flops_ratio = 1;   // arm / reference, mean over the pairs
  bool equal_flops = true;  // each pair within 1 % or one step, whichever is more
};

struct ExcludedRun {
  std::string run;
  std::string reason;
};

struct Comparison {
  std::vector<RunRecord> runs;  // all of them, as given
  std::vector<Arm> arms;        // the first is the reference; may be empty
  std::vector<PairedDifference> differences;
  std::vector<ExcludedRun> exclusions;
};

// Median over the second half of the steps, which leaves the start-up out; NaN without steps.
double steady_tokens_per_s(const RunRecord& run);

// "lower" or "higher" where the 95 % interval excludes 0, "tied" where it does not, "one seed: no
// spread" where there is none, "unknown" where a run lacks the number.
std::string verdict(const Estimate& difference);

Comparison compare(std::vector<RunRecord> runs);

}  // namespace convoy
