// What a manifest says about its study, and every run that it plans, as `study.json` beside the
// exported tables: the tables hold what was measured, this file what was meant.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "experiments/manifest/sweep_plan.h"
#include "experiments/sweep/run_store.h"

namespace convoy {

struct StudyRun {
  std::string id = {}, name = {}, arch = {}, size = {};
  std::string state = {}, message = {}, command = {};
  std::int64_t seed = 0;
  double n = 0, tokens = 0, flops = 0;  // as planned, by the study's conventions
  double target_flops = 0;              // what C was matched to; 0: nothing
  double epochs = 0;                    // passes over the data; 0: unknown
  double lr = 0, lr_multiplier = 1;
  std::int64_t steps = 0;
};

struct Study {
  std::string name = {}, mode = {}, match = {}, match_by = {};
  double flops_tolerance = 0;
  std::string flop_convention = {}, param_convention = {};
  std::string lr_rule = {}, warmup_rule = {}, schedule = {};  // empty: the configuration's own
  std::string law = {}, loss = {}, holdout = {}, reference = {};
  std::vector<std::string> exclude = {}, warnings = {};
  std::vector<StudyRun> runs = {};
};

// The state of every run is that of the store now.
Study study_of(const SweepPlan& plan, const RunStore& store);

std::string to_json(const Study& study);

// Throws Error that names the file and the field.
Study read_study(const std::filesystem::path& path);

}  // namespace convoy
