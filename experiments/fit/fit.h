// One law fitted to one arm: parameters with intervals, how the minimum was found and checked, what
// the fit predicts, and every reason for doubt. A fit that cannot be trusted at all is refused.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/law.h"
#include "experiments/fit/screening.h"
#include "experiments/fit/uncertainty.h"

namespace convoy {

struct FitOptions {
  LawKind law = LawKind::chinchilla;
  Loss loss = Loss::huber;
  int resamples = 4000;  // where there are enough sizes for a bootstrap
  bool holdout = true;   // refit without the largest size, and see what it predicts there
};

struct FittedParameter {
  std::string name;
  double value = 0;
  std::optional<Interval> interval = {};  // 95 %
};

// A point of the table, or one beyond it; losses in nats per token.
struct Prediction {
  std::string size = {};
  double N = 0, D = 0, C = 0;
  double observed = 0;  // NaN beyond the table
  double predicted = 0;
  std::optional<Interval> mean = {};       // 95 % of the curve
  std::optional<Interval> new_point = {};  // 95 % of one more point
};

struct FitResult {
  std::string law;
  std::string formula;
  Loss loss = Loss::huber;
  std::vector<FittedParameter> parameters = {};
  std::vector<std::vector<double>> correlations = {};  // of ln E, ln A .. and the exponents
  double objective = 0;
  double cross_check = 0;  // the objective that variable projection reaches
  bool converged = false;
  int starts = 0;
  int starts_agreeing = 0;
  int runs = 0;
  int sizes = 0;
  double decades = 0;                // of C
  double residual_sd = 0;            // of ln loss
  std::string interval_method = {};  // "t", "bootstrap", or why there are none
  int freedom = 0;
  std::optional<SeedNoise> noise = {};
  std::vector<Prediction> points = {};
  std::vector<Prediction> curve = {};  // along C, see frontier.h; without observations
  std::string curve_note = {};
  Prediction beyond = {};                   // at ten times the largest C
  std::optional<Prediction> held_out = {};  // the largest size, by a fit without it
  std::string no_holdout = {};              // why there is none
  std::vector<std::string> warnings = {};

  double parameter(const std::string& name) const;
};

// Throws Error where the fit is refused: too few points, a law that the data cannot tell (see
// make_law), no convergence.
FitResult fit(const std::vector<RunRow>& runs, const FitOptions& options);

}  // namespace convoy
