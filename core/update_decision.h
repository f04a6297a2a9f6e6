// What one optimizer step decides from its gradient norm and loss; host and device code.
#pragma once

#include <cmath>

#include "core/backend.h"
#include "core/scalar_math.h"

namespace convoy {

// A step is bad when its loss or gradient norm is not finite, or when the norm exceeds
// `spike_factor` times the running average. A bad step changes no weight, no moment and not t.
CONVOY_HOST_DEVICE inline void decide_update_element(double* control, double sum_of_squares,
                                                     double loss, const UpdateRules& rules) {
  constexpr double kAverageDecay = 0.98;  // a memory of about 50 steps
  const double norm = sqrt(sum_of_squares);
  const double average = control[StepControl::norm_average];
  const bool finite = norm - norm == 0 && loss - loss == 0;
  const bool spike = rules.spike_factor > 0 && average > 0 && norm > rules.spike_factor * average;
  const bool bad = !finite || spike;
  control[StepControl::gradient_norm] = norm;
  control[StepControl::skip] = bad ? 1 : 0;
  control[StepControl::skipped_in_row] = bad ? control[StepControl::skipped_in_row] + 1 : 0;
  control[StepControl::skipped_total] += bad ? 1 : 0;
  if (bad) return;
  control[StepControl::adam_steps] += 1;
  control[StepControl::norm_average] =
      average > 0 ? kAverageDecay * average + (1 - kAverageDecay) * norm : norm;
  const bool clipped = rules.clip > 0 && norm > rules.clip;
  control[StepControl::update_scale] = clipped ? rules.clip / norm : 1;
}

}  // namespace convoy
