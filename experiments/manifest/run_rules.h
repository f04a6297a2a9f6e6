// The learning rate and the warm-up that a manifest's rules give a run.
#pragma once

#include "experiments/manifest/sweep_plan.h"

namespace convoy {

// Sets the peak rate and the warm-up of a run whose steps are known. The rules see the tokens of
// the whole plan, not a branch's, so that branches share the past. Throws where the warm-up does
// not end before the cooldown begins.
void apply_rules(const RulesSection& rules, double planned_tokens, PlannedRun& run);

// The last step at which the rate is still the peak: where a branch leaves its long run.
std::int64_t last_stable_step(const RunConfig& config);

}  // namespace convoy
