#include <fmt/format.h>

#include <cmath>
#include <map>
#include <tuple>

#include "experiments/statistics.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/plot.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

bool has_speed(const ReportedRun& run) { return std::isfinite(run.tokens_per_s); }

Plot speed_plot(const SweepData& data, const SweepAnalysis& analysis) {
  Plot plot{.id = "plot-throughput",
            .title = "Training tokens per second against parameters",
            .x = {{"parameters N", AxisScale::logarithmic}},
            .y = {"tokens per second", AxisScale::logarithmic}};
  std::map<std::string, PlotSeries> by_arm;
  for (const ReportedRun& run : data.runs) {
    if (!has_speed(run)) continue;
    PlotSeries& series = by_arm[run.row.arch];
    series.x.resize(1);
    series.x[0].push_back(run.row.N);
    series.y.push_back(run.tokens_per_s);
  }
  for (auto& [arm, series] : by_arm) {
    series.group = series.label = arm_name(arm);
    series.colour = colour_of(analysis, arm);
    series.mark = Mark::points;
    plot.series.push_back(std::move(series));
  }
  return plot;
}

struct Speeds {
  std::vector<double> tokens_per_s, mfu;
  double device_hours = 0;
};

TextTable speed_table(const SweepData& data) {
  using Key = std::tuple<std::string, double, std::string, std::string, double>;
  std::map<Key, Speeds> groups;  // arm, N, size, device, ranks
  for (const ReportedRun& run : data.runs) {
    if (!has_speed(run)) continue;
    const double ranks = std::isfinite(run.row.ranks) ? run.row.ranks : 0;  // 0: unknown
    Speeds& speeds = groups[{run.row.arch, run.row.N, run.row.size, run.row.device, ranks}];
    speeds.tokens_per_s.push_back(run.tokens_per_s);
    if (std::isfinite(run.mfu)) speeds.mfu.push_back(run.mfu);
    speeds.device_hours += run.row.device_hours;
  }
  TextTable table{{"arm, size", "N", "runs", "tokens/s", "MFU", "ranks", "device hours", "device"},
                  {}};
  for (const auto& [key, speeds] : groups) {
    const auto& [arm, n, size, device, ranks] = key;
    const double mfu = median(speeds.mfu);
    table.rows.push_back(
        {arm_name(arm) + ", " + size, compact(n), std::to_string(speeds.tokens_per_s.size()),
         grouped(std::llround(median(speeds.tokens_per_s))),
         std::isfinite(mfu) ? fmt::format("{:.1f} %", 100 * mfu) : "unknown",
         ranks > 0 ? fmt::format("{}", ranks) : "unknown",
         std::isfinite(speeds.device_hours) ? fmt::format("{:.3g}", speeds.device_hours)
                                            : "unknown",
         device.empty() ? "unknown" : device});
  }
  return table;
}

}  // namespace

std::string throughput_section(const SweepData& data, const SweepAnalysis& analysis) {
  const TextTable table = speed_table(data);
  std::string body =
      figure(speed_plot(data, analysis), "No throughput: curves.csv is missing, or has no speeds.");
  if (!table.rows.empty())
    body += html_table(table) +
            quiet(
                "Of each run the median over the second half of its steps, of the runs their "
                "median. MFU: model FLOPs per second over the device's dense peak.");
  return section("throughput", "Throughput", body);
}

}  // namespace convoy
