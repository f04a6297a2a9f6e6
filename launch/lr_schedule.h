// The learning rate of step s = 1..S. Warm-up: peak * s / warm-up steps. Then cosine to the minimum
// at S, or warm-up-stable-decay (arXiv 2404.06395): constant, and a cooldown at the end.
#pragma once

#include "launch/config.h"

namespace convoy {

double learning_rate(const RunConfig& config, std::int64_t step);

}  // namespace convoy
