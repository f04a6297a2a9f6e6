#include "experiments/chart_layout.h"

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

constexpr double kMargin = 14;
constexpr double kLegendRow = 19;
constexpr double kLegendLine = 34;  // the stroke and the gap before its label

// Fills rows from left to right.
std::vector<LegendEntry> lay_out_legend(const Chart& chart, double top) {
  std::vector<LegendEntry> entries;
  double x = kMargin;
  double y = top;
  for (const Series& series : chart.series) {
    if (series.stroke == Stroke::faint || series.label.empty()) continue;
    const double width =
        kLegendLine + kCharacterWidth * static_cast<double>(display_width(series.label)) + kMargin;
    if (x > kMargin && x + width > chart.width) {
      x = kMargin;
      y += kLegendRow;
    }
    entries.push_back({&series, x, y});
    x += width;
  }
  return entries;
}

Frame lay_out_frame(const Chart& chart, double top) {
  std::size_t longest = 0;
  for (const Series& series : chart.series)
    longest = std::max(longest, display_width(series.end_label));
  const double right =
      longest > 0 ? kMargin + kCharacterWidth * static_cast<double>(longest) : kMargin;
  return {62, chart.width - right, top, chart.height - 52.0};
}

Range x_range(const Chart& chart) {
  std::vector<double> values;
  for (const Series& series : chart.series)
    for (const Point p : drawable_points(series, chart)) values.push_back(p.x);
  if (values.empty()) throw Error(concat("the chart \"", chart.title, "\" has nothing to draw"));
  return range_of(values, chart.x.scale, 0.015);
}

Range y_range(const Chart& chart) {
  std::vector<double> values;
  for (const Series& series : chart.series) {
    for (const Point p : drawable_points(series, chart)) values.push_back(p.y);
    for (const BandPoint p : drawable_band(series, chart)) {
      values.push_back(p.low);
      values.push_back(p.high);
    }
  }
  return range_of(values, chart.y.scale, 0.05);
}

}  // namespace

ChartLayout lay_out(const Chart& chart) {
  const double legend_top = chart.note.empty() ? 38 : 56;
  auto legend = lay_out_legend(chart, legend_top);
  const double legend_bottom = legend.empty() ? legend_top : legend.back().y + kLegendRow;
  const Range x = x_range(chart);
  return {lay_out_frame(chart, legend_bottom + 8), x, y_range(chart), std::move(legend)};
}

std::vector<Point> drawable_points(const Series& series, const Chart& chart) {
  const auto shown = [&](Point p) {
    return drawable(p.x, chart.x.scale) && drawable(p.y, chart.y.scale);
  };
  std::vector<Point> points;
  std::copy_if(series.points.begin(), series.points.end(), std::back_inserter(points), shown);
  return points;
}

std::vector<BandPoint> drawable_band(const Series& series, const Chart& chart) {
  const auto shown = [&](BandPoint p) {
    return drawable(p.x, chart.x.scale) && drawable(p.low, chart.y.scale) &&
           drawable(p.high, chart.y.scale);
  };
  std::vector<BandPoint> band;
  std::copy_if(series.band.begin(), series.band.end(), std::back_inserter(band), shown);
  return band;
}

}  // namespace convoy
