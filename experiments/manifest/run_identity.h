// Who a run is: a name made of its own configuration alone, so that any manifest that plans the
// same run finds it in the store, and adding a size renumbers nothing.
#pragma once

#include <string>

#include "launch/config.h"

namespace convoy {

// The settings that change a run's numbers, one "key = value" a line, in alphabetical order,
// without those at their defaults. Where files go, what is logged, how often checkpoints are
// written and how ranks are laid out are not among them. The length is always in steps, the warm-up
// too.
std::string identity_text(const RunConfig& config);

// SHA-256 of the identity, 64 hexadecimal digits.
std::string config_hash(const RunConfig& config);

// "d96_l3_lowrank_r16_w4_qkv_800steps_seed0_1a2b3c4d".
std::string run_id(const RunConfig& config);

}  // namespace convoy
