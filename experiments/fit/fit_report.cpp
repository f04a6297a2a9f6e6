#include "experiments/fit/fit_report.h"

#include <fmt/format.h>

#include <cmath>
#include <ostream>

#include "experiments/fit/fit_words.h"
#include "experiments/report_table.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

std::string general(double value) {
  return std::isfinite(value) ? fmt::format("{:.6g}", value) : "-";
}

std::string general_interval(const std::optional<Interval>& interval) {
  if (!interval) return "-";
  return fmt::format("{:.4g} .. {:.4g}", interval->low, interval->high);
}

void print_notes(std::ostream& out, const std::vector<std::string>& warnings,
                 const std::vector<ExcludedRun>& exclusions) {
  for (const std::string& warning : warnings) out << "  warning: " << warning << '\n';
  for (const ExcludedRun& exclusion : exclusions)
    out << "  left out: " << exclusion.run << ": " << exclusion.reason << '\n';
}

void print_noise(std::ostream& out, const std::optional<SeedNoise>& noise) {
  if (noise)
    out << fmt::format("  seed noise: {:.5f} in ln loss ({} degrees of freedom)\n", noise->sd,
                       noise->freedom);
  else
    out << "  seed noise: unknown, one seed of each\n";
}

TextTable parameter_table(const FitResult& fit) {
  TextTable table{{"parameter", "value", "95 % interval"}, {}};
  for (const FittedParameter& parameter : fit.parameters)
    table.headings.push_back("r(" + parameter.name + ")");
  for (std::size_t i = 0; i < fit.parameters.size(); ++i) {
    const FittedParameter& parameter = fit.parameters[i];
    std::vector<std::string> row{parameter.name, general(parameter.value),
                                 general_interval(parameter.interval)};
    for (std::size_t j = 0; j < fit.parameters.size(); ++j)
      row.push_back(fit.correlations.empty() ? "-" : signed_fixed(fit.correlations[i][j], 3));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<std::string> prediction_row(const std::string& what, const Prediction& point) {
  return {what,
          scientific(point.C),
          fixed(point.observed, 4),
          fixed(point.predicted, 4),
          signed_fixed(std::log(point.observed / point.predicted), 4),
          interval_text(point.mean, 4),
          interval_text(point.new_point, 4)};
}

TextTable prediction_table(const FitResult& fit) {
  TextTable table{{"prediction", "C", "observed", "predicted", "ln ratio", "95 % of the curve",
                   "95 % of a run"},
                  {}};
  if (fit.held_out)
    table.rows.push_back(prediction_row(fit.held_out->size + ", held out", *fit.held_out));
  table.rows.push_back(prediction_row(fit.points.back().size, fit.points.back()));
  table.rows.push_back(prediction_row(fit.beyond.size, fit.beyond));
  return table;
}

const SizeCost* cost_at(const ArmAdvantage& arm, const std::string& size) {
  for (const SizeCost& cost : arm.cost.sizes)
    if (cost.size == size) return &cost;
  return nullptr;
}

TextTable budget_table(const ArmAdvantage& arm) {
  TextTable table{{"size", "C", "loss", "M, separate fits", "95 % interval", "M, interpolated",
                   "FLOP overhead", "FLOP/s ratio"},
                  {}};
  for (const BudgetAdvantage& budget : arm.budgets) {
    const SizeCost* cost = cost_at(arm, budget.size);
    table.rows.push_back(
        {budget.size, scientific(budget.C), fixed(budget.loss, 4),
         fixed(budget.separate.estimate, 3), interval_text(budget.separate.interval, 3),
         fixed(budget.interpolation.estimate, 3), cost == nullptr ? "-" : percent(cost->overhead),
         cost == nullptr ? "-" : fixed(cost->speed_ratio, 3)});
  }
  return table;
}

void print_arm(std::ostream& out, const ArmAdvantage& arm, const ArmComparison& all) {
  const std::string& reference = all.reference;
  const std::string by = all.speeds_source.empty() ? "" : ", by " + all.speeds_source;
  out << '\n' << arm.arm << " against " << reference << '\n';
  out << "  compute advantage (joint fit): " << advantage_text(arm.joint.advantage) << '\n';
  out << "  interpolated, mean of budgets: " << advantage_text(arm.interpolation) << '\n';
  out << "  with scale:                    " << scale_text(arm.joint.scale) << '\n';
  out << "  on the clock:                  " << advantage_text(arm.wall_clock) << by << '\n';
  out << "  if its extra FLOPs were free:  " << advantage_text(arm.without_cost) << '\n';
  print_table(out, budget_table(arm));
  print_notes(out, arm.joint.warnings, {});
}

TextTable ordering_table(const std::vector<OrderedPair>& pairs) {
  TextTable table{{"lower", "higher", "size", "pairs", "difference (nats)", "95 % interval",
                   "FLOPs", "verdict"},
                  {}};
  for (const OrderedPair& pair : pairs)
    table.rows.push_back({pair.better, pair.worse, pair.size.empty() ? "all sizes" : pair.size,
                          std::to_string(pair.difference.n), signed_fixed(pair.difference.mean, 4),
                          interval_text(pair.difference.interval, 4),
                          fmt::format("{:.3f} x", pair.flops_ratio), pair.verdict});
  return table;
}

}  // namespace

void print_fit(std::ostream& out, const FitResult& fit,
               const std::vector<ExcludedRun>& exclusions) {
  const bool huber = fit.loss == Loss::huber;
  out << '\n' << fit.formula << '\n';
  out << fmt::format("  {} runs, {} points, {} sizes, {:.2f} decades of C\n", fit.runs,
                     fit.points.size(), fit.sizes, fit.decades);
  out << fmt::format("  {}: {:.9e}; {} of {} starts agree; by variable projection {:.9e}\n",
                     huber ? "sum of Huber(1e-3) of ln loss" : "mean squared ln loss",
                     fit.objective, fit.starts_agreeing, fit.starts, fit.cross_check);
  out << "  intervals: " << fit.interval_method;
  if (fit.interval_method == "t") out << ", " << fit.freedom << " degrees of freedom";
  out << fmt::format("; residual sd {:.5f} in ln loss\n", fit.residual_sd);
  print_noise(out, fit.noise);
  out << '\n';
  print_table(out, parameter_table(fit));
  out << '\n';
  print_table(out, prediction_table(fit));
  if (!fit.no_holdout.empty()) out << "  no held-out error: " << fit.no_holdout << '\n';
  if (!fit.warnings.empty() || !exclusions.empty()) out << '\n';
  print_notes(out, fit.warnings, exclusions);
}

void print_comparison(std::ostream& out, const ArmComparison& comparison) {
  for (const ArmAdvantage& arm : comparison.arms) print_arm(out, arm, comparison);
  if (!comparison.orderings.empty()) {
    out << "\nOrderings (difference of paired losses; ordered where its interval excludes 0)\n";
    print_table(out, ordering_table(comparison.orderings));
  }
  out << '\n';
  print_noise(out, comparison.noise);
  print_notes(out, {}, comparison.exclusions);
}

}  // namespace convoy
