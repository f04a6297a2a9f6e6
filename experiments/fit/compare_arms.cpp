#include "experiments/fit/compare_arms.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace convoy {
namespace {

std::vector<std::string> arms_in_order(const std::vector<RunRow>& runs) {
  std::vector<std::string> arms;
  for (const RunRow& run : runs)
    if (std::find(arms.begin(), arms.end(), run.arch) == arms.end()) arms.push_back(run.arch);
  return arms;
}

std::string reference_of(const std::vector<RunRow>& all, const std::vector<RunRow>& usable,
                         const std::string& asked) {
  const auto arms = arms_in_order(usable);
  if (arms.size() < 2)
    throw Error(concat("a comparison needs the usable runs of two arms, and the column arch has ",
                       arms.size(), ": say which column names them, --column arch=HEADING"));
  const std::string reference = asked.empty() ? all.front().arch : asked;
  if (std::find(arms.begin(), arms.end(), reference) != arms.end()) return reference;
  runs_of_arm(usable, reference);  // throws, with the list
  return reference;
}

// M times a factor with its own uncertainty, or none, in the logarithm.
Advantage scaled(const Advantage& advantage, const Estimate& log_factor) {
  Advantage result = advantage;
  if (!advantage.interval) return result;
  const double log_m = std::log(advantage.estimate);
  const double centre = log_m + log_factor.mean;
  const double spread = log_factor.interval ? log_factor.interval->high - log_factor.mean : 0;
  result.estimate = std::exp(centre);
  result.interval =
      Interval{std::exp(centre - std::hypot(log_m - std::log(advantage.interval->low), spread)),
               std::exp(centre + std::hypot(std::log(advantage.interval->high) - log_m, spread))};
  return result;
}

Advantage unknown(const Advantage& advantage, const std::string& why) {
  return {.method = advantage.method, .note = why};
}

ArmAdvantage against(const std::vector<RunRow>& reference_runs, const std::vector<RunRow>& arm_runs,
                     FlopsColumn flops, const std::optional<Speeds>& speeds) {
  const auto reference = seed_means(reference_runs);
  const auto arm = seed_means(arm_runs);
  ArmAdvantage result{.arm = arm_runs.front().arch};
  result.joint = joint_advantage(reference, arm);
  const auto separate = separate_advantage(reference, arm);
  const auto interpolation = interpolated_advantage(reference, arm);
  for (std::size_t i = 0; i < arm.size(); ++i)
    result.budgets.push_back(
        {arm[i].size, arm[i].C, std::exp(arm[i].log_loss), separate[i], interpolation[i]});
  result.interpolation = mean_interpolated(interpolation);
  result.cost = cost_of(reference_runs, arm_runs, flops, speeds);
  const Advantage& m = result.joint.advantage;
  result.wall_clock = result.cost.log_speed_ratio.n > 0 ? scaled(m, result.cost.log_speed_ratio)
                                                        : unknown(m, result.cost.no_speed);
  result.without_cost =
      std::isfinite(result.cost.mean_overhead)
          ? scaled(m, Estimate{.n = 1, .mean = std::log1p(result.cost.mean_overhead)})
          : unknown(m, result.cost.no_overhead);
  return result;
}

}  // namespace

ArmComparison compare_arms(const Runs& table, const CompareOptions& options) {
  check_conventions(table.rows);
  const Screened screened = screen(table.rows);
  ArmComparison result;
  result.exclusions = screened.exclusions;
  if (options.speeds) result.speeds_source = options.speeds->source;
  result.reference = reference_of(table.rows, screened.runs, options.reference);
  const auto reference = runs_of_arm(screened.runs, result.reference);
  const auto flops = table.has_flops ? FlopsColumn::present : FlopsColumn::absent;
  for (const std::string& arm : arms_in_order(screened.runs))
    if (arm != result.reference)
      result.arms.push_back(
          against(reference, runs_of_arm(screened.runs, arm), flops, options.speeds));
  result.orderings = orderings(screened.runs, options.expected);
  result.noise = seed_noise(screened.runs);
  return result;
}

}  // namespace convoy
