#include <fmt/format.h>

#include <cmath>

#include "experiments/fit/units.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/plot.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

std::string label_of_run(const ReportedRun& run) {
  return label_of(run.row) + (run.row.status == "done" ? "" : " (" + run.row.status + ")");
}

PlotSeries curve(const ReportedRun& run, const std::vector<CurvePoint>& points, Mark mark) {
  PlotSeries series{.group = arm_name(run.row.arch),
                    .label = label_of_run(run) + (mark == Mark::faint ? ", training" : ""),
                    .mark = mark,
                    .x = {{}, {}, {}}};
  for (const CurvePoint& point : points) {
    series.x[0].push_back(point.flops);
    series.x[1].push_back(point.tokens);
    series.x[2].push_back(point.wall_s);
    series.y.push_back(point.loss);
  }
  return series;
}

Plot curves_plot(const SweepData& data, const SweepAnalysis& analysis) {
  Plot plot{.id = "plot-curves",
            .title = "Training and validation loss of every run",
            .x = {{"training FLOPs", AxisScale::logarithmic},
                  {"training tokens", AxisScale::logarithmic},
                  {"seconds", AxisScale::logarithmic}},
            .y = {"loss (nats per token)", AxisScale::logarithmic}};
  const auto add = [&](const ReportedRun& run, const std::vector<CurvePoint>& points, Mark mark) {
    if (points.empty()) return;
    plot.series.push_back(curve(run, points, mark));
    plot.series.back().colour = colour_of(analysis, run.row.arch);
  };
  for (const ReportedRun& run : data.runs) add(run, run.training, Mark::faint);
  for (const ReportedRun& run : data.runs) add(run, run.validation, Mark::point_line);
  return plot;
}

// Seeds of one unit as in the fits: their mean is that of ln loss.
std::string spread_of(const std::vector<RunRow>& runs, const Unit& unit) {
  double squares = 0;
  for (const RunRow& run : runs)
    if (run.arch == unit.arch && run.size == unit.size && run.N == unit.N && run.D == unit.D)
      squares += std::pow(std::log(run.loss) - unit.log_loss, 2);
  return unit.seeds > 1 ? fixed(std::sqrt(squares / (unit.seeds - 1)), 5) : "one seed";
}

TextTable loss_table(const SweepAnalysis& analysis) {
  // The losses first: a phone shows the first columns without a swipe.
  TextTable table{{"arm, size", "loss (nats)", "sd of ln loss", "seeds", "N", "D", "C"}, {}};
  for (const std::string& arm : analysis.arms)
    for (const Unit& unit : seed_means(analysis.usable))
      if (unit.arch == arm)
        table.rows.push_back({arm_name(arm) + ", " + unit.size, fixed(std::exp(unit.log_loss), 4),
                              spread_of(analysis.usable, unit), std::to_string(unit.seeds),
                              compact(unit.N), compact(unit.D), scientific(unit.C)});
  return table;
}

}  // namespace

std::string curves_section(const SweepData& data, const SweepAnalysis& analysis) {
  std::string body = figure(curves_plot(data, analysis),
                            "No loss curves: curves.csv is missing, or has no row of these runs.");
  body += quiet(
      "Every run, whatever became of it. Strong: validation loss; faint: training loss. A branch's "
      "curve begins where it left the longer run that it shares its past with.");
  const TextTable table = loss_table(analysis);
  body += table.rows.empty() ? missing("No run has a final loss.")
                             : html_table(table) + quiet("Final validation loss, mean over seeds.");
  return section("curves", "Loss curves", body);
}

}  // namespace convoy
