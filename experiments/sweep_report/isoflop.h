// Iso-FLOP profiles: at one budget, the loss over the size, and the parabola in ln N through it,
// whose lowest point is the best size (Hoffmann et al. 2022, arXiv 2203.15556, the second
// approach).
#pragma once

#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/units.h"
#include "experiments/statistics.h"

namespace convoy {

struct IsoflopProfile {
  std::string arm;
  double budget = 0;             // training FLOPs
  std::vector<Unit> units = {};  // by increasing N
  // loss = p[0] + p[1] x + p[2] x^2, x = ln N - centre; only where the note is empty.
  std::vector<double> parabola = {};
  double centre = 0;
  double best_n = std::numeric_limits<double>::quiet_NaN();
  double best_d = std::numeric_limits<double>::quiet_NaN();  // between the neighbours' D
  double best_loss = std::numeric_limits<double>::quiet_NaN();
  std::optional<Interval> best_n_interval = {};  // 95 %; needs four sizes
  std::string note = {};                         // why there is no best size

  double at(double n) const;  // the parabola
};

// `units` of one arm and one budget, any order.
IsoflopProfile isoflop_profile(const std::string& arm, double budget, std::vector<Unit> units);

}  // namespace convoy
