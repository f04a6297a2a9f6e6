// Proves that a complete schedule can be run: every pass of every stage and micro-batch exactly
// once and after what it needs, every transfer once and with its other side, no deadlock even where
// each send and each receive blocks its rank until the other side is there, and weights gathered
// while in use.
#pragma once

#include "parallel/schedule/schedule.h"

namespace convoy {

// Throws Error that names the ranks and the actions at fault.
void validate(const Schedule& schedule);

}  // namespace convoy
