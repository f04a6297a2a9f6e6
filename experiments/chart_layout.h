// Where the parts of a chart stand: the frame of the plot, the ranges of the axes, the legend.
#pragma once

#include <vector>

#include "experiments/svg_chart.h"

namespace convoy {

inline constexpr double kCharacterWidth = 6.6;  // mean, at the chart's font size of 12 px

// The rectangle of the plot inside the picture, in pixels from the top left.
struct Frame {
  double left, right, top, bottom;
};

struct LegendEntry {
  const Series* series;
  double x, y;  // of its top left
};

struct ChartLayout {
  Frame frame;
  Range x_range, y_range;
  std::vector<LegendEntry> legend;
};

ChartLayout lay_out(const Chart& chart);

std::vector<Point> drawable_points(const Series& series, const Chart& chart);
std::vector<BandPoint> drawable_band(const Series& series, const Chart& chart);

}  // namespace convoy
