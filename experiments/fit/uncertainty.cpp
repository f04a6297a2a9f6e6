#include "experiments/fit/uncertainty.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "core/error.h"
#include "core/random.h"

namespace convoy {
namespace {

constexpr double kNormalCritical = 1.959963984540054;

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

struct Residuals {
  double squares = 0;
  double pulls = 0;      // sum of squares of the clamped residuals
  double quadratic = 0;  // how many lie where Huber's loss is quadratic
};

Residuals residuals_of(const Problem& problem, const std::vector<double>& theta) {
  Residuals sums;
  for (const Observation& observation : problem.observations) {
    const double r = residual(observation, theta);
    sums.squares += r * r;
    sums.pulls += std::pow(std::clamp(r, -kHuberDelta, kHuberDelta), 2);
    sums.quadratic += std::abs(r) <= kHuberDelta ? 1 : 0;
  }
  return sums;
}

// J^T J, where a term that has vanished leaves a row of zeros.
SmallMatrix normal_matrix(const Problem& problem, const std::vector<double>& theta) {
  SmallMatrix matrix(theta.size());
  for (const Observation& observation : problem.observations)
    matrix.add_outer(log_gradient(observation, theta), 1);
  return matrix;
}

std::optional<SmallMatrix> inverse_of_seen(const SmallMatrix& matrix) {
  constexpr double kUnseen = 1e-12;  // of the trace
  double trace = 0;
  for (std::size_t i = 0; i < matrix.size(); ++i) trace += matrix(i, i);
  std::vector<std::size_t> seen;
  for (std::size_t i = 0; i < matrix.size(); ++i)
    if (matrix(i, i) > kUnseen * trace) seen.push_back(i);
  SmallMatrix reduced(seen.size());
  for (std::size_t i = 0; i < seen.size(); ++i)
    for (std::size_t j = 0; j < seen.size(); ++j) reduced(i, j) = matrix(seen[i], seen[j]);
  const auto small = inverse(reduced);
  if (!small) return std::nullopt;
  SmallMatrix full(matrix.size());
  for (std::size_t i = 0; i < seen.size(); ++i)
    for (std::size_t j = 0; j < seen.size(); ++j) full(seen[i], seen[j]) = (*small)(i, j);
  return full;
}

std::optional<Interval> around(double centre, double variance, double critical) {
  const double half = critical * std::sqrt(std::max(0.0, variance));
  return Interval{centre - half, centre + half};
}

SmallMatrix covariance_of(const std::vector<std::vector<double>>& draws) {
  const std::size_t n = draws.front().size();
  std::vector<double> mean(n);
  for (const auto& draw : draws)
    for (std::size_t i = 0; i < n; ++i) mean[i] += draw[i] / static_cast<double>(draws.size());
  SmallMatrix matrix(n);
  for (const auto& draw : draws) {
    std::vector<double> deviation(n);
    for (std::size_t i = 0; i < n; ++i) deviation[i] = draw[i] - mean[i];
    matrix.add_outer(deviation, 1 / static_cast<double>(draws.size() - 1));
  }
  return matrix;
}

}  // namespace

double Uncertainty::critical() const {
  return method == "t" ? student_t_critical(0.95, freedom) : kNormalCritical;
}

std::optional<Interval> Uncertainty::of(const std::vector<double>& weights,
                                        const std::vector<double>& theta) const {
  if (!draws.empty()) {
    std::vector<double> values;
    for (const auto& draw : draws) values.push_back(dot(weights, draw));
    return central_95(std::move(values));
  }
  if (!covariance) return std::nullopt;
  const double variance = product(weights, *covariance, weights);
  if (variance == 0) return std::nullopt;  // held fixed, because its term has vanished
  return around(dot(weights, theta), variance, critical());
}

std::optional<Interval> Uncertainty::mean_of(const Observation& point,
                                             const std::vector<double>& theta) const {
  if (!covariance) return std::nullopt;
  const auto gradient = log_gradient(point, theta);
  return around(log_prediction(point, theta.data()), product(gradient, *covariance, gradient),
                critical());
}

std::optional<Interval> Uncertainty::new_point(const Observation& point,
                                               const std::vector<double>& theta) const {
  if (!covariance) return std::nullopt;
  const auto gradient = log_gradient(point, theta);
  const double variance = product(gradient, *covariance, gradient) + residual_sd * residual_sd;
  return around(log_prediction(point, theta.data()), variance, critical());
}

int cluster_count(const Problem& problem) {
  std::set<int> clusters;
  for (const Observation& observation : problem.observations) clusters.insert(observation.cluster);
  return static_cast<int>(clusters.size());
}

std::optional<SmallMatrix> unit_covariance(const Problem& problem,
                                           const std::vector<double>& theta) {
  return inverse_of_seen(normal_matrix(problem, theta));
}

Uncertainty delta_method(const Problem& problem, const std::vector<double>& theta) {
  const double points = static_cast<double>(problem.observations.size());
  const int clusters = cluster_count(problem);
  Uncertainty result{.method = "t", .freedom = clusters - problem.parameters};
  if (result.freedom < 1) {
    result.missing = concat("no interval: ", clusters, " sizes for ", problem.parameters,
                            " parameters leave nothing to judge the noise by");
    return result;
  }
  const Residuals sums = residuals_of(problem, theta);
  const double spare = points - problem.parameters;
  result.residual_sd = std::sqrt(sums.squares / spare);
  double variance = sums.squares / spare;
  if (problem.loss == Loss::huber) {
    // Huber 1981, Robust Statistics, (6.5): mean squared pull over squared mean slope of the pull.
    const double slope = sums.quadratic / points;
    if (slope * points < problem.parameters) {
      result.missing = concat("no interval: only ", sums.quadratic, " of ", points,
                              " points lie "
                              "within Huber's 1e-3, too few for its formula. Use --loss mse");
      return result;
    }
    const double correction = 1 + problem.parameters / points * (1 - slope) / slope;
    variance = correction * correction * sums.pulls / spare / (slope * slope);
  }
  result.covariance = unit_covariance(problem, theta);
  if (result.covariance)
    result.covariance->scale(variance * points / clusters);
  else
    result.missing = "no interval: the data do not tell the parameters apart";
  return result;
}

Uncertainty bootstrap(const Problem& problem, const std::vector<double>& theta, int resamples) {
  CHECK(resamples >= 2, "a bootstrap of ", resamples);
  const int clusters = cluster_count(problem);
  const RandomStream random(0, "bootstrap");
  Uncertainty result{.method = "bootstrap"};
  Problem resample = problem;
  for (int draw = 0; draw < resamples; ++draw) {
    std::vector<int> times(static_cast<std::size_t>(clusters));
    for (int i = 0; i < clusters; ++i) {
      const auto index = static_cast<std::uint64_t>(draw) * clusters + i;
      ++times[static_cast<std::size_t>(random.uniform(index) * clusters)];
    }
    for (Observation& observation : resample.observations)
      observation.weight = times[observation.cluster];
    result.draws.push_back(minimize(resample, theta).theta);
  }
  result.covariance = covariance_of(result.draws);
  const double spare = static_cast<double>(problem.observations.size()) - problem.parameters;
  result.residual_sd = std::sqrt(residuals_of(problem, theta).squares / spare);
  return result;
}

Uncertainty uncertainty_of(const Problem& problem, const std::vector<double>& theta, int sizes,
                           int resamples) {
  if (sizes > kBootstrapSizes && resamples >= 2) return bootstrap(problem, theta, resamples);
  return delta_method(problem, theta);
}

Interval central_95(std::vector<double> values) {
  CHECK(!values.empty(), "percentiles of nothing");
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const double place = share * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
  };
  return {at(0.025), at(0.975)};
}

}  // namespace convoy
