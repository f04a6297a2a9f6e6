// The runs that a manifest stands for, each with its complete configuration and what it will cost.
// A run that is branched from a longer one stands after it and names it as its parent.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "experiments/manifest/sweep_manifest.h"
#include "launch/config.h"

namespace convoy {

struct PlannedRun {
  std::string id;    // in the store, by what changes its numbers
  std::string name;  // in this manifest: "dynconv_qkv-20M-20x-seed0"
  std::string arch, size;
  std::int64_t seed = 0;
  double budget = 0;  // as the manifest writes it: tokens per parameter, FLOPs or tokens
  double lr_multiplier = 1;
  double branch = 1;             // the share of the planned tokens that this run trains on
  std::string parent;            // id of the longer run whose checkpoint it starts from; or empty
  std::int64_t branch_step = 0;  // of that checkpoint
  std::size_t chain = 0;         // a long run and its branches share one number: an array task

  RunConfig config;
  std::int64_t steps = 0;
  double n = 0;              // parameters by [plan] param_convention
  double tokens = 0;         // D
  double flops = 0;          // C of training, by [plan] flop_convention
  double target_flops = 0;   // what [plan] matches C to; 0: nothing
  double epochs = 0;         // passes over the data; 0: unknown
  double unique_tokens = 0;  // of D; 0: unknown, the data are not there yet
  int ranks = 1;
  double hours = 0;  // estimated, of the steps that are not the parent's
  std::vector<std::string> warnings;
};

struct SweepPlan {
  SweepManifest manifest;
  std::vector<PlannedRun> runs;
  std::vector<std::string> warnings;

  const PlannedRun* find(const std::string& id_or_name) const;
  std::size_t chains() const { return runs.empty() ? 0 : runs.back().chain + 1; }
};

// Throws one Error that lists every run that cannot work, is not matched within the tolerance or
// needs more data than there is.
SweepPlan expand(const SweepManifest& manifest);

// What `convoy sweep plan` prints.
std::string to_table(const SweepPlan& plan);
std::string to_json(const SweepPlan& plan);

}  // namespace convoy
