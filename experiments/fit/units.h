// The unit of every fit: the mean over the seeds of one (arm, size, token count). Seeds share that
// size's own error, so they are never counted as independent points.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/table.h"

namespace convoy {

struct Unit {
  std::string arch = {};
  std::string size = {};
  double N = 0;         // parameters
  double D = 0;         // training tokens
  double C = 0;         // training FLOPs
  double log_loss = 0;  // mean over the seeds of ln(nats per token)
  int seeds = 0;
};

// In the order of C, then of N.
std::vector<Unit> seed_means(const std::vector<RunRow>& runs);

// log10 of the largest C over the least.
double decades_of_compute(const std::vector<Unit>& units);

int distinct_sizes(const std::vector<Unit>& units);

// The spread of ln loss over the seeds of one unit, pooled over the units.
struct SeedNoise {
  double sd = 0;
  int freedom = 0;
};
std::optional<SeedNoise> seed_noise(const std::vector<RunRow>& runs);  // nothing with one seed each

}  // namespace convoy
