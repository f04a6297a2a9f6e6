#include <fmt/format.h>

#include <cmath>
#include <map>

#include "core/error.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/isoflop.h"
#include "experiments/sweep_report/plot.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

std::vector<IsoflopProfile> profiles_of(const SweepData& data, const SweepAnalysis& analysis) {
  std::map<std::string, double> budget_of;  // by run
  for (const ReportedRun& run : data.runs) budget_of[label_of(run.row)] = run.target_flops;
  std::map<std::pair<double, std::string>, std::vector<RunRow>> groups;
  for (const RunRow& run : analysis.usable)
    if (const double budget = budget_of[label_of(run)]; budget > 0)
      groups[{budget, run.arch}].push_back(run);
  std::vector<IsoflopProfile> profiles;
  for (const auto& [key, runs] : groups)
    profiles.push_back(isoflop_profile(key.second, key.first, seed_means(runs)));
  return profiles;
}

PlotSeries points_of(const IsoflopProfile& profile, const std::string& label) {
  PlotSeries series{
      .group = arm_name(profile.arm), .label = label, .mark = Mark::points, .x = {{}}};
  for (const Unit& unit : profile.units) {
    series.x[0].push_back(unit.N);
    series.y.push_back(std::exp(unit.log_loss));
  }
  return series;
}

PlotSeries parabola_of(const IsoflopProfile& profile, const std::string& label) {
  constexpr int kPoints = 40;
  PlotSeries series{.group = arm_name(profile.arm), .label = label, .x = {{}}};
  const double low = profile.units.front().N;
  const double ratio = profile.units.back().N / low;
  for (int i = 0; i <= kPoints && !profile.parabola.empty(); ++i) {
    const double n = low * std::pow(ratio, static_cast<double>(i) / kPoints);
    series.x[0].push_back(n);
    series.y.push_back(profile.at(n));
  }
  return series;
}

Plot isoflop_plot(const std::vector<IsoflopProfile>& profiles, const SweepAnalysis& analysis) {
  Plot plot{.id = "plot-isoflop",
            .title = "Loss against parameters at equal training FLOPs",
            .x = {{"parameters N", AxisScale::logarithmic}},
            .y = {"loss (nats per token)", AxisScale::linear}};
  for (const IsoflopProfile& profile : profiles) {
    const std::string label =
        fmt::format("{} at {} FLOPs", arm_name(profile.arm), scientific(profile.budget));
    for (PlotSeries series : {parabola_of(profile, label), points_of(profile, label)}) {
      series.colour = colour_of(analysis, profile.arm);
      plot.series.push_back(std::move(series));
    }
  }
  return plot;
}

TextTable best_sizes(const std::vector<IsoflopProfile>& profiles) {
  TextTable table{{"arm", "C", "sizes", "best N", "95 % interval", "D there", "loss there", ""},
                  {}};
  for (const IsoflopProfile& profile : profiles) {
    const auto& interval = profile.best_n_interval;
    std::string range = "-";
    if (interval) range = compact(interval->low) + " .. " + compact(interval->high);
    table.rows.push_back({arm_name(profile.arm), scientific(profile.budget),
                          std::to_string(profile.units.size()), compact(profile.best_n), range,
                          compact(profile.best_d), fixed(profile.best_loss, 4), profile.note});
  }
  return table;
}

}  // namespace

std::string isoflop_section(const SweepData& data, const SweepAnalysis& analysis) {
  const auto titled = [](const std::string& body) {
    return section("isoflop", "Iso-FLOP profiles", body);
  };
  if (!data.study)
    return titled(missing("No iso-FLOP profiles: without study.json the budgets are not known."));
  if (data.study->mode != "isoflop")
    return titled(missing(concat("No iso-FLOP profiles: the manifest plans a ", data.study->mode,
                                 ", not budgets with several sizes each.")));
  const auto profiles = profiles_of(data, analysis);
  if (profiles.empty()) return titled(missing("No iso-FLOP profiles: no budget has a usable run."));
  return titled(
      figure(isoflop_plot(profiles, analysis), "No iso-FLOP profile can be drawn.") +
      html_table(best_sizes(profiles)) +
      quiet("The lowest point of a parabola in ln N through the losses of one budget. Its "
            "interval is that of the parabola's residuals, and needs four sizes."));
}

}  // namespace convoy
