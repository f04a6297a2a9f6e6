#include <nlohmann/json.hpp>

#include "experiments/fit/fit_report.h"
#include "launch/json_number.h"

namespace convoy {
namespace {

using nlohmann::ordered_json;

// Declared before the template that finds them.
ordered_json json_of(const BudgetAdvantage& budget);
ordered_json json_of(const SizeCost& cost);
ordered_json json_of(const ArmAdvantage& arm);
ordered_json json_of(const OrderedPair& pair);

ordered_json json_of(const std::optional<Interval>& interval) {
  if (!interval) return nullptr;
  return ordered_json::array({json_number(interval->low), json_number(interval->high)});
}

ordered_json json_of(const Prediction& point) {
  return {{"size", point.size},
          {"N", json_number(point.N)},
          {"D", json_number(point.D)},
          {"C", json_number(point.C)},
          {"observed", json_number(point.observed)},
          {"predicted", json_number(point.predicted)},
          {"mean_interval", json_of(point.mean)},
          {"prediction_interval", json_of(point.new_point)}};
}

ordered_json json_of(const std::optional<SeedNoise>& noise) {
  if (!noise) return nullptr;
  return {{"sd_log_loss", noise->sd}, {"freedom", noise->freedom}};
}

ordered_json json_of(const std::vector<ExcludedRun>& exclusions) {
  ordered_json list = ordered_json::array();
  for (const ExcludedRun& exclusion : exclusions)
    list.push_back({{"run", exclusion.run}, {"reason", exclusion.reason}});
  return list;
}

template <class Items>
ordered_json list_of(const Items& items) {
  ordered_json list = ordered_json::array();
  for (const auto& item : items) list.push_back(json_of(item));
  return list;
}

ordered_json json_of(const Advantage& advantage) {
  ordered_json json{{"estimate", json_number(advantage.estimate)},
                    {"low", nullptr},
                    {"high", nullptr},
                    {"method", advantage.method}};
  if (advantage.interval) {
    json["low"] = json_number(advantage.interval->low);
    json["high"] = json_number(advantage.interval->high);
  }
  if (!advantage.note.empty()) json["note"] = advantage.note;
  return json;
}

ordered_json json_of(const BudgetAdvantage& budget) {
  return {{"size", budget.size},
          {"C", json_number(budget.C)},
          {"loss", json_number(budget.loss)},
          {"advantage", json_of(budget.separate)},
          {"interpolation", json_of(budget.interpolation)}};
}

ordered_json json_of(const SizeCost& cost) {
  return {{"size", cost.size},
          {"flop_overhead", json_number(cost.overhead)},
          {"flops_per_second_ratio", json_number(cost.speed_ratio)}};
}

ordered_json json_of(const ScaleTest& test) {
  ordered_json json{{"slope", json_number(test.slope)},
                    {"interval", json_of(test.interval)},
                    {"p", json_number(test.p)}};
  if (!test.note.empty()) json["note"] = test.note;
  return json;
}

ordered_json json_of(const ArmAdvantage& arm) {
  return {{"arm", arm.arm},
          {"advantage", json_of(arm.joint.advantage)},
          {"budgets", list_of(arm.budgets)},
          {"interpolation", json_of(arm.interpolation)},
          {"scale_test", json_of(arm.joint.scale)},
          {"sizes", list_of(arm.cost.sizes)},
          {"flop_overhead", json_number(arm.cost.mean_overhead)},
          {"advantage_without_overhead", json_of(arm.without_cost)},
          {"wall_clock_advantage", json_of(arm.wall_clock)},
          {"warnings", arm.joint.warnings}};
}

ordered_json json_of(const OrderedPair& pair) {
  return {{"better", pair.better},
          {"worse", pair.worse},
          {"size", pair.size.empty() ? ordered_json(nullptr) : ordered_json(pair.size)},
          {"n", pair.difference.n},
          {"difference", json_number(pair.difference.mean)},
          {"interval", json_of(pair.difference.interval)},
          {"verdict", pair.verdict},
          {"flops_ratio", json_number(pair.flops_ratio)}};
}

}  // namespace

std::string fit_json(const FitResult& fit, const std::vector<ExcludedRun>& exclusions) {
  ordered_json json{{"law", fit.law}};
  ordered_json intervals = ordered_json::object();
  for (const FittedParameter& parameter : fit.parameters) {
    json[parameter.name] = json_number(parameter.value);
    intervals[parameter.name] = json_of(parameter.interval);
  }
  json.update({{"loss", fit.loss == Loss::huber ? "huber" : "mse"},
               {"objective", fit.objective},
               {"objective_by_variable_projection", json_number(fit.cross_check)},
               {"converged", fit.converged},
               {"starts", fit.starts},
               {"starts_agreeing", fit.starts_agreeing},
               {"intervals", intervals},
               {"interval_method", fit.interval_method},
               {"runs", fit.runs},
               {"points", fit.points.size()},
               {"sizes", fit.sizes},
               {"decades_of_C", fit.decades},
               {"residual_sd", fit.residual_sd},
               {"seed_noise", json_of(fit.noise)},
               {"correlations", fit.correlations},
               {"predictions", list_of(fit.points)},
               {"beyond", json_of(fit.beyond)},
               {"held_out", fit.held_out ? json_of(*fit.held_out) : ordered_json(nullptr)},
               {"warnings", fit.warnings},
               {"excluded", json_of(exclusions)}});
  return json.dump(2) + "\n";
}

std::string compare_json(const ArmComparison& comparison) {
  const std::string& speeds = comparison.speeds_source;
  const ordered_json json{{"reference", comparison.reference},
                          {"speeds", speeds.empty() ? ordered_json(nullptr) : ordered_json(speeds)},
                          {"arms", list_of(comparison.arms)},
                          {"orderings", list_of(comparison.orderings)},
                          {"seed_noise", json_of(comparison.noise)},
                          {"excluded", json_of(comparison.exclusions)}};
  return json.dump(2) + "\n";
}

}  // namespace convoy
