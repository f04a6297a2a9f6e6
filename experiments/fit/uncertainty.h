// How sure a fit is. Below about 30 distinct sizes by the delta method with Student's t, above by a
// bootstrap over sizes. Points of one arm and size share an error: they count as one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/minimize.h"
#include "experiments/fit/small_matrix.h"
#include "experiments/statistics.h"

namespace convoy {

inline constexpr int kBootstrapSizes = 30;

struct Uncertainty {
  std::string method = {};                      // "t" or "bootstrap"
  std::string missing = {};                     // why there is none, where there is none
  int freedom = 0;                              // of Student's t
  double residual_sd = 0;                       // of one point, in ln loss
  std::optional<SmallMatrix> covariance = {};   // of theta
  std::vector<std::vector<double>> draws = {};  // theta of each resample

  // 95 % of weights . theta. Of draws: the percentiles.
  std::optional<Interval> of(const std::vector<double>& weights,
                             const std::vector<double>& theta) const;

  // 95 % of the mean ln loss of such a point, and of one new point's.
  std::optional<Interval> mean_of(const Observation& point, const std::vector<double>& theta) const;
  std::optional<Interval> new_point(const Observation& point,
                                    const std::vector<double>& theta) const;

  double critical() const;  // t at 95 %, or the normal's 1.96
};

int cluster_count(const Problem& problem);

// (J^T J)^-1, the covariance of theta for points of standard deviation 1; nothing where the data do
// not tell the parameters apart. A term that has vanished (E at 0) is held fixed, with variance 0.
std::optional<SmallMatrix> unit_covariance(const Problem& problem,
                                           const std::vector<double>& theta);

// Delta method: s^2 (J^T J)^-1 for squares and Huber's formula for the other loss, inflated by
// points per cluster as if they were copies of each other, with clusters - parameters degrees of
// freedom. `missing` says so where none are left.
Uncertainty delta_method(const Problem& problem, const std::vector<double>& theta);

// Refits `resamples` times from theta to clusters drawn with replacement. Reproducible.
Uncertainty bootstrap(const Problem& problem, const std::vector<double>& theta, int resamples);

// The one or the other, by the number of sizes.
Uncertainty uncertainty_of(const Problem& problem, const std::vector<double>& theta, int sizes,
                           int resamples);

// Percentiles 2.5 and 97.5 of values, interpolated.
Interval central_95(std::vector<double> values);

}  // namespace convoy
