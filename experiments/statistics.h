// The little statistics a comparison of a few seeds needs: mean, sample standard deviation, and the
// t-based 95 % interval of the mean.
#pragma once

#include <optional>
#include <span>

namespace convoy {

struct Interval {
  double low = 0;
  double high = 0;
};

struct Estimate {
  int n = 0;
  double mean = 0;
  std::optional<double> sd = {};          // sample (n - 1); absent for one value
  std::optional<Interval> interval = {};  // 95 % of the mean, n - 1 degrees of freedom
};

// Throws Error on no values.
Estimate estimate(std::span<const double> values);

// P(|T| < t) of Student's t with `freedom` >= 1 degrees of freedom, t >= 0.
// Abramowitz and Stegun, 26.7.3 and 26.7.4.
double student_t_two_sided(double t, int freedom);

// The t with P(|T| < t) = confidence, 0 < confidence < 1.
double student_t_critical(double confidence, int freedom);

double median(std::span<const double> values);  // NaN of no values

}  // namespace convoy
