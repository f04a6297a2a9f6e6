#include "experiments/fit/fit.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "experiments/fit/fit_checks.h"
#include "experiments/fit/frontier.h"

namespace convoy {
namespace {

std::optional<Interval> exponential(const std::optional<Interval>& logs) {
  if (!logs) return std::nullopt;
  return Interval{std::exp(logs->low), std::exp(logs->high)};
}

std::vector<FittedParameter> parameters_of(const Law& law, const std::vector<double>& theta,
                                           const Uncertainty& uncertainty) {
  std::vector<FittedParameter> parameters;
  for (const Quantity& quantity : law.quantities()) {
    const auto interval = uncertainty.of(quantity.weights, theta);
    parameters.push_back({quantity.name, quantity.value(theta),
                          quantity.logarithmic ? exponential(interval) : interval});
  }
  return parameters;
}

std::vector<std::vector<double>> correlations_of(const Law& law, const Uncertainty& uncertainty) {
  if (!uncertainty.covariance) return {};
  const auto quantities = law.quantities();
  const auto covariance = [&](std::size_t i, std::size_t j) {
    return product(quantities[i].weights, *uncertainty.covariance, quantities[j].weights);
  };
  std::vector<std::vector<double>> rows(quantities.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t j = 0; j < rows.size(); ++j)
      rows[i].push_back(covariance(i, j) / std::sqrt(covariance(i, i) * covariance(j, j)));
  return rows;
}

Prediction predict(const Law& law, const Unit& unit, const std::vector<double>& theta,
                   const Uncertainty& uncertainty) {
  const Observation point = law.terms_of(unit);
  return {.size = unit.size,
          .N = unit.N,
          .D = unit.D,
          .C = unit.C,
          .observed = std::exp(unit.log_loss),
          .predicted = std::exp(log_prediction(point, theta.data())),
          .mean = exponential(uncertainty.mean_of(point, theta)),
          .new_point = exponential(uncertainty.new_point(point, theta))};
}

// The largest unit grown by sqrt(10) in N and D each, so that C grows tenfold at equal D/N.
Unit ten_times_larger(const Unit& largest) {
  Unit unit = largest;
  unit.size = "10 x the largest C";
  unit.N *= std::sqrt(10);
  unit.D *= std::sqrt(10);
  unit.C *= 10;
  unit.log_loss = std::numeric_limits<double>::quiet_NaN();
  return unit;
}

// What a fit to all but the units of the largest size says about the largest of them.
void hold_largest_out(FitResult& result, const std::vector<Unit>& units,
                      const FitOptions& options) {
  const Unit& largest = units.back();
  std::vector<Unit> rest;
  std::copy_if(units.begin(), units.end(), std::back_inserter(rest),
               [&](const Unit& unit) { return unit.size != largest.size; });
  try {
    const auto law = make_law(options.law, rest);
    const Problem problem = law->problem(rest, options.loss);
    const MultiStart search = minimize_from(problem, law->starts(rest));
    require_convergence(search, law->name());
    const auto uncertainty =
        uncertainty_of(problem, search.best.theta, distinct_sizes(rest), options.resamples / 4);
    result.held_out = predict(*law, largest, search.best.theta, uncertainty);
  } catch (const Error& error) {
    result.no_holdout = concat("without the largest size: ", error.what());
  }
}

void record_search(FitResult& result, const MultiStart& search, const Projection& check) {
  result.objective = search.best.objective;
  result.cross_check = check.objective;
  result.converged = search.best.converged;
  result.starts = search.starts;
  result.starts_agreeing = search.agreeing;
}

}  // namespace

double FitResult::parameter(const std::string& name) const {
  for (const FittedParameter& parameter : parameters)
    if (parameter.name == name) return parameter.value;
  throw Error(concat("the law ", law, " has no parameter ", name));
}

FitResult fit(const std::vector<RunRow>& runs, const FitOptions& options) {
  check_conventions(runs);
  const auto units = seed_means(runs);
  const auto law = make_law(options.law, units);
  const Problem problem = law->problem(units, options.loss);
  const MultiStart search = minimize_from(problem, law->starts(units));
  require_convergence(search, law->name());
  const Projection check = project(problem);
  const auto& theta = search.best.theta;

  FitResult result{.law = law->name(), .formula = law->formula(), .loss = options.loss};
  record_search(result, search, check);
  result.runs = static_cast<int>(runs.size());
  result.sizes = distinct_sizes(units);
  result.decades = decades_of_compute(units);
  result.noise = seed_noise(runs);
  result.warnings = doubts_about(*law, units, search, check);

  const auto uncertainty = uncertainty_of(problem, theta, result.sizes, options.resamples);
  result.interval_method = uncertainty.missing.empty() ? uncertainty.method : uncertainty.missing;
  result.freedom = uncertainty.freedom;
  result.residual_sd = uncertainty.residual_sd;
  result.parameters = parameters_of(*law, theta, uncertainty);
  result.correlations = correlations_of(*law, uncertainty);
  for (const Unit& unit : units) result.points.push_back(predict(*law, unit, theta, uncertainty));
  const Frontier frontier = frontier_of(*law, theta, units);
  for (const Unit& unit : frontier.points)
    result.curve.push_back(predict(*law, unit, theta, uncertainty));
  result.curve_note = frontier.note;
  result.beyond = predict(*law, ten_times_larger(units.back()), theta, uncertainty);
  if (options.holdout) hold_largest_out(result, units, options);
  return result;
}

}  // namespace convoy
