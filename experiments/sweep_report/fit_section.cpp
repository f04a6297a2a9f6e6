#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/fit/fit_words.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/plot.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

std::string four(double value) { return std::isfinite(value) ? fmt::format("{:.4g}", value) : "-"; }

PlotSeries observed(const std::vector<RunRow>& runs, const std::string& arm) {
  PlotSeries series{.group = arm_name(arm),
                    .label = arm_name(arm) + ", observed",
                    .mark = Mark::points,
                    .x = {{}}};
  for (const Unit& unit : seed_means(runs))
    if (unit.arch == arm) {
      series.x[0].push_back(unit.C);
      series.y.push_back(std::exp(unit.log_loss));
    }
  return series;
}

PlotSeries fitted(const FitResult& fit, const std::string& arm) {
  PlotSeries series{.group = arm_name(arm), .label = arm_name(arm) + ", fit", .x = {{}}};
  const bool banded =
      std::all_of(fit.curve.begin(), fit.curve.end(), [](const auto& p) { return p.mean; });
  for (const Prediction& point : fit.curve) {
    series.x[0].push_back(point.C);
    series.y.push_back(point.predicted);
    if (!banded) continue;
    series.low.push_back(point.mean->low);
    series.high.push_back(point.mean->high);
  }
  return series;
}

// The units that no unit of less or equal C beats.
PlotSeries lowest_so_far(const std::vector<RunRow>& runs) {
  PlotSeries series{.group = "lowest loss at each C",
                    .label = "lowest loss at each C",
                    .colour = 7,
                    .mark = Mark::dashed,
                    .x = {{}}};
  double least = INFINITY;
  for (const Unit& unit : seed_means(runs)) {
    if (unit.log_loss >= least) continue;
    least = unit.log_loss;
    series.x[0].push_back(unit.C);
    series.y.push_back(std::exp(unit.log_loss));
  }
  return series;
}

Plot fit_plot(const SweepAnalysis& analysis) {
  Plot plot{.id = "plot-fit",
            .title = "Final loss against training FLOPs, with the fitted laws",
            .x = {{"training FLOPs", AxisScale::logarithmic}},
            .y = {"loss (nats per token)", AxisScale::logarithmic}};
  plot.series.push_back(lowest_so_far(analysis.usable));
  for (const ArmFit& arm : analysis.fits) {
    const auto add = [&](PlotSeries series) {
      series.colour = colour_of(analysis, arm.arm);
      plot.series.push_back(std::move(series));
    };
    if (arm.fit) add(fitted(*arm.fit, arm.arm));
    add(observed(analysis.usable, arm.arm));
  }
  return plot;
}

TextTable parameter_table(const FitResult& fit) {
  TextTable table{{"parameter", "value", "95 % interval"}, {}};
  for (const FittedParameter& parameter : fit.parameters)
    table.headings.push_back("r(" + parameter.name + ")");
  for (std::size_t i = 0; i < fit.parameters.size(); ++i) {
    const FittedParameter& p = fit.parameters[i];
    std::vector<std::string> row{
        p.name, four(p.value),
        p.interval ? four(p.interval->low) + " .. " + four(p.interval->high) : "none"};
    for (std::size_t j = 0; j < fit.parameters.size(); ++j)
      row.push_back(fit.correlations.empty() ? "-" : signed_fixed(fit.correlations[i][j], 2));
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::vector<std::string> prediction_row(const std::string& what, const Prediction& point) {
  const double error = std::log(point.observed / point.predicted);
  return {what,
          scientific(point.C),
          fixed(point.observed, 4),
          fixed(point.predicted, 4),
          percent(error),
          interval_text(point.mean, 4),
          interval_text(point.new_point, 4)};
}

TextTable prediction_table(const FitResult& fit) {
  TextTable table{{"prediction", "C", "observed", "predicted", "error in ln loss",
                   "95 % of the curve", "95 % of a run"},
                  {}};
  if (fit.held_out)
    table.rows.push_back(prediction_row(fit.held_out->size + ", held out", *fit.held_out));
  if (!fit.points.empty())
    table.rows.push_back(prediction_row(fit.points.back().size + ", fitted", fit.points.back()));
  table.rows.push_back(prediction_row(fit.beyond.size, fit.beyond));
  return table;
}

std::string quality(const FitResult& fit) {
  const std::string noise = fit.noise ? fmt::format("seed noise {:.5f} in ln loss", fit.noise->sd)
                                      : std::string("seed noise unknown, one seed of each");
  const std::string method =
      fit.interval_method == "t"
          ? fmt::format("intervals by t with {} degrees of freedom", fit.freedom)
      : fit.interval_method == "bootstrap" ? std::string("intervals by bootstrap over sizes")
                                           : fit.interval_method;
  return fmt::format(
      "{}. {} runs, {} points, {} sizes, {:.2f} decades of C. {} {:.6e}; {} of {} starts agree, a "
      "second algorithm reaches {:.6e}. Residual sd {:.5f} in ln loss; {}; {}.",
      fit.formula, fit.runs, fit.points.size(), fit.sizes, fit.decades,
      fit.loss == Loss::huber ? "Sum of Huber(1e-3) of ln loss" : "Mean squared ln loss",
      fit.objective, fit.starts_agreeing, fit.starts, fit.cross_check, fit.residual_sd, noise,
      method);
}

std::string arm_text(const ArmFit& arm) {
  std::string out = "<h3>" + escape_xml(arm_name(arm.arm)) + "</h3>\n";
  if (!arm.fit) return out + missing("No fit: " + arm.refusal);
  out += html_table(parameter_table(*arm.fit)) + html_table(prediction_table(*arm.fit));
  if (!arm.fit->no_holdout.empty()) out += missing("No held-out error: " + arm.fit->no_holdout);
  out += quiet(quality(*arm.fit));
  if (!arm.fit->curve_note.empty()) out += quiet(arm.fit->curve_note);
  std::vector<std::string> warnings;
  for (const std::string& warning : arm.fit->warnings) warnings.push_back("warning: " + warning);
  return out + bullets(warnings);
}

Plot residual_plot(const SweepAnalysis& analysis) {
  Plot plot{.id = "plot-residuals",
            .title = "Residuals of the fitted laws",
            .x = {{"training FLOPs", AxisScale::logarithmic}},
            .y = {"ln(observed / fitted loss)", AxisScale::linear}};
  for (const ArmFit& arm : analysis.fits) {
    if (!arm.fit) continue;
    PlotSeries series{.group = arm_name(arm.arm),
                      .label = arm_name(arm.arm),
                      .colour = colour_of(analysis, arm.arm),
                      .mark = Mark::points,
                      .x = {{}}};
    for (const Prediction& point : arm.fit->points) {
      series.x[0].push_back(point.C);
      series.y.push_back(std::log(point.observed / point.predicted));
    }
    plot.series.push_back(std::move(series));
  }
  return plot;
}

TextTable residual_table(const SweepAnalysis& analysis) {
  TextTable table{{"arm", "points", "residual sd", "largest", "at", "seed noise"}, {}};
  for (const ArmFit& arm : analysis.fits) {
    if (!arm.fit || arm.fit->points.empty()) continue;
    const auto error = [](const Prediction& p) { return std::log(p.observed / p.predicted); };
    const auto worst = std::max_element(
        arm.fit->points.begin(), arm.fit->points.end(),
        [&](const auto& a, const auto& b) { return std::abs(error(a)) < std::abs(error(b)); });
    table.rows.push_back({arm_name(arm.arm), std::to_string(arm.fit->points.size()),
                          fixed(arm.fit->residual_sd, 5), signed_fixed(error(*worst), 5),
                          worst->size + ", C " + scientific(worst->C),
                          arm.fit->noise ? fixed(arm.fit->noise->sd, 5) : "one seed"});
  }
  return table;
}

}  // namespace

std::string fit_section(const SweepAnalysis& analysis) {
  std::string body = figure(fit_plot(analysis), "No frontier: no run has a final loss.");
  body += quiet(
      "Points: means over seeds. Bands: 95 % of the curve; where there is no band, the text below "
      "says why. Lines go on to three times the largest C.");
  for (const ArmFit& arm : analysis.fits) body += arm_text(arm);
  return section("fits", "Frontier and fits", body);
}

std::string residual_section(const SweepAnalysis& analysis) {
  const TextTable table = residual_table(analysis);
  std::string body = figure(residual_plot(analysis), "No residuals: there is no fit.");
  if (!table.rows.empty())
    body += html_table(table) + quiet("In ln loss: 0.01 is one per cent of the loss.");
  return section("residuals", "Residuals", body);
}

}  // namespace convoy
