#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "experiments/fit/fit_words.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/plot.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

constexpr double kUnknownBound = std::numeric_limits<double>::quiet_NaN();

// One number for all losses: a level line with its band.
PlotSeries level(const ArmAdvantage& arm) {
  const Advantage& m = arm.joint.advantage;
  PlotSeries series{.group = arm.arm, .label = arm.arm + ", joint fit", .x = {{}}};
  if (!std::isfinite(m.estimate) || !m.interval || arm.budgets.empty()) return series;
  double low = INFINITY, high = -INFINITY;
  for (const BudgetAdvantage& budget : arm.budgets) {
    low = std::min(low, budget.loss);
    high = std::max(high, budget.loss);
  }
  series.x[0] = {low, high};
  series.y = {m.estimate, m.estimate};
  series.low = {m.interval->low, m.interval->low};
  series.high = {m.interval->high, m.interval->high};
  return series;
}

PlotSeries separate(const ArmAdvantage& arm) {
  PlotSeries series{
      .group = arm.arm, .label = arm.arm + ", separate fits", .mark = Mark::points, .x = {{}}};
  for (const BudgetAdvantage& budget : arm.budgets) {
    const auto& interval = budget.separate.interval;
    series.x[0].push_back(budget.loss);
    series.y.push_back(interval ? budget.separate.estimate : kUnknownBound);
    series.low.push_back(interval ? interval->low : kUnknownBound);
    series.high.push_back(interval ? interval->high : kUnknownBound);
  }
  return series;
}

PlotSeries interpolated(const ArmAdvantage& arm) {
  PlotSeries series{
      .group = arm.arm, .label = arm.arm + ", interpolated", .mark = Mark::dashed, .x = {{}}};
  for (const BudgetAdvantage& budget : arm.budgets) {
    series.x[0].push_back(budget.loss);
    series.y.push_back(budget.interpolation.estimate);
  }
  return series;
}

PlotSeries unity(const ArmComparison& comparison) {
  PlotSeries series{.group = comparison.reference,
                    .label = comparison.reference + ": 1",
                    .colour = 0,
                    .mark = Mark::line,
                    .x = {{}}};
  double low = INFINITY, high = -INFINITY;
  for (const ArmAdvantage& arm : comparison.arms)
    for (const BudgetAdvantage& budget : arm.budgets) {
      low = std::min(low, budget.loss);
      high = std::max(high, budget.loss);
    }
  series.x[0] = {low, high};
  series.y = {1, 1};
  return series;
}

Plot advantage_plot(const SweepAnalysis& analysis) {
  Plot plot{.id = "plot-advantage",
            .title = "Compute advantage against loss",
            .x = {{"loss (nats per token)", AxisScale::linear}},
            .y = {"M = C of the reference / C of the arm", AxisScale::linear}};
  for (const ArmAdvantage& arm : analysis.comparison->arms)
    for (PlotSeries series : {level(arm), separate(arm), interpolated(arm)}) {
      series.colour = colour_of(analysis, arm.arm);
      plot.series.push_back(std::move(series));
    }
  if (!plot.empty()) plot.series.insert(plot.series.begin(), unity(*analysis.comparison));
  return plot;
}

TextTable estimators(const ArmAdvantage& arm, const ArmComparison& all) {
  const std::string by = all.speeds_source.empty() ? "" : ", by speeds.csv";
  return {{"estimate", "compute advantage M"},
          {{"joint fit: one shape for both arms (headline)", advantage_text(arm.joint.advantage)},
           {"interpolated, mean of the budgets", advantage_text(arm.interpolation)},
           {"does M change with scale?", scale_text(arm.joint.scale)},
           {"on the clock: M x (FLOP/s of the arm / of the reference)",
            advantage_text(arm.wall_clock) + by},
           {"if the arm's extra FLOPs were free", advantage_text(arm.without_cost)},
           {"FLOP overhead per token, mean", std::isfinite(arm.cost.mean_overhead)
                                                 ? percent(arm.cost.mean_overhead)
                                                 : "unknown: " + arm.cost.no_overhead}}};
}

const SizeCost* cost_at(const ArmAdvantage& arm, const std::string& size) {
  for (const SizeCost& cost : arm.cost.sizes)
    if (cost.size == size) return &cost;
  return nullptr;
}

std::string with_reason(const Advantage& advantage) {
  if (std::isfinite(advantage.estimate)) return fixed(advantage.estimate, 3);
  return advantage.note.empty() ? "none" : "none: " + advantage.note;
}

TextTable budget_table(const ArmAdvantage& arm) {
  TextTable table{{"size", "C", "loss", "M, separate fits", "95 % interval", "M, interpolated",
                   "FLOP overhead", "FLOP/s ratio"},
                  {}};
  for (const BudgetAdvantage& budget : arm.budgets) {
    const SizeCost* cost = cost_at(arm, budget.size);
    table.rows.push_back({budget.size, scientific(budget.C), fixed(budget.loss, 4),
                          with_reason(budget.separate), interval_text(budget.separate.interval, 3),
                          with_reason(budget.interpolation),
                          cost == nullptr ? "-" : percent(cost->overhead),
                          cost == nullptr ? "-" : fixed(cost->speed_ratio, 3)});
  }
  return table;
}

TextTable ordering_table(const std::vector<OrderedPair>& pairs) {
  TextTable table{
      {"lower, higher", "size", "pairs", "difference (nats)", "95 % interval", "FLOPs", "verdict"},
      {}};
  for (const OrderedPair& pair : pairs)
    table.rows.push_back({pair.better + ", " + pair.worse,
                          pair.size.empty() ? "all sizes" : pair.size,
                          std::to_string(pair.difference.n), signed_fixed(pair.difference.mean, 4),
                          interval_text(pair.difference.interval, 4),
                          fmt::format("{:.3f} x", pair.flops_ratio), pair.verdict});
  return table;
}

std::string arm_text(const ArmAdvantage& arm, const ArmComparison& all) {
  std::vector<std::string> warnings;
  for (const std::string& warning : arm.joint.warnings) warnings.push_back("warning: " + warning);
  return "<h3>" + escape_xml(arm.arm + " against " + all.reference) + "</h3>\n" +
         html_table(estimators(arm, all)) + html_table(budget_table(arm)) + bullets(warnings);
}

}  // namespace

std::string advantage_section(const SweepAnalysis& analysis) {
  const std::string title = "Compute advantage";
  if (!analysis.comparison)
    return section("advantage", title, missing("None: " + analysis.no_comparison));
  const ArmComparison& comparison = *analysis.comparison;
  std::string body = figure(advantage_plot(analysis),
                            "No advantage can be drawn; the reason of each arm stands below.");
  body += quiet(fmt::format(
      "How much more compute {} needs for the loss that the arm reached. Line with band: joint "
      "fit. "
      "Points with whiskers: separate fits, only where they have a 95 % interval. Dashed: "
      "interpolation, without a fit.",
      comparison.reference));
  for (const ArmAdvantage& arm : comparison.arms) body += arm_text(arm, comparison);
  if (!comparison.orderings.empty())
    body += "<h3>Order of the arms</h3>\n" + html_table(ordering_table(comparison.orderings)) +
            quiet(
                "Paired by seed; ordered only where the 95 % interval of the difference excludes "
                "0.");
  return section("advantage", title, body);
}

}  // namespace convoy
