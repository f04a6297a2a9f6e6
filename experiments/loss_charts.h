// The two pictures of a comparison: loss against training FLOPs and against training tokens.
#pragma once

#include "experiments/comparison.h"
#include "experiments/svg_chart.h"

namespace convoy {

enum class LossAgainst { flops, tokens };

// One strong line per arm: validation loss, the mean over seeds with a band from the least to the
// greatest. Behind it, faint, the training loss, smoothed over 2 % of the steps. Curves begin at
// the first validation (of three or more, else at 5 % of the run), because the fall before it would
// flatten everything after.
Chart loss_chart(const Comparison& comparison, LossAgainst against);

}  // namespace convoy
