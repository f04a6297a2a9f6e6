#include "experiments/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <vector>

#include "core/error.h"

namespace convoy {

double student_t_two_sided(double t, int freedom) {
  CHECK(freedom >= 1 && t >= 0, "t = ", t, ", degrees of freedom = ", freedom);
  const double angle = std::atan(t / std::sqrt(freedom));
  const double cosine = std::cos(angle);
  const bool odd = freedom % 2 == 1;
  // A sum of `freedom / 2` terms (26.7.3 for odd, 26.7.4 for even), each from the one before.
  double term = odd ? cosine : 1.0;
  double sum = 0;
  for (int k = odd ? 3 : 2; k <= freedom; k += 2) {
    sum += term;
    term *= cosine * cosine * (k - 1) / k;
  }
  sum *= std::sin(angle);
  return odd ? 2 / std::numbers::pi * (angle + sum) : sum;
}

double student_t_critical(double confidence, int freedom) {
  CHECK(confidence > 0 && confidence < 1, "confidence = ", confidence);
  double low = 0;
  double high = 1;
  while (student_t_two_sided(high, freedom) < confidence) high *= 2;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (student_t_two_sided(middle, freedom) < confidence ? low : high) = middle;
  }
  return high;
}

Estimate estimate(std::span<const double> values) {
  CHECK(!values.empty(), "an estimate needs at least one value");
  const double n = static_cast<double>(values.size());
  Estimate result;
  result.n = static_cast<int>(values.size());
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (result.n == 1) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  const double sd = std::sqrt(squares / (n - 1));
  const double half = student_t_critical(0.95, result.n - 1) * sd / std::sqrt(n);
  result.sd = sd;
  result.interval = Interval{result.mean - half, result.mean + half};
  return result;
}

double median(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

}  // namespace convoy
