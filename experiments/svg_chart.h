// A line chart as one SVG file that stands alone: white ground, axes with units, grid, legend, and
// colours that colour-blind readers tell apart. The same chart gives the same bytes.
#pragma once

#include <string>
#include <vector>

#include "experiments/chart_axis.h"

namespace convoy {

struct Point {
  double x = 0;
  double y = 0;
};

// The band around a line, for example least and greatest over the seeds.
struct BandPoint {
  double x = 0;
  double low = 0;
  double high = 0;
};

enum class Stroke { strong, faint };  // faint: context behind the strong lines, not in the legend

struct Series {
  std::string label;
  std::string colour;         // "#0072b2", from chart_colour
  std::vector<Point> points;  // points that are not drawable are left out; a single one is a marker
  std::vector<BandPoint> band = {};
  std::string end_label = {};  // written beside the last point
  Stroke stroke = Stroke::strong;
};

struct ChartAxis {
  std::string title;  // with the unit: "training tokens"
  Scale scale = Scale::linear;
};

struct Chart {
  std::string title;
  std::string note;  // one line under the title; may be empty
  ChartAxis x;
  ChartAxis y;
  std::vector<Series> series;
  int width = 860;
  int height = 480;
};

// The palette of Okabe and Ito without its yellow; repeats after seven.
std::string chart_colour(std::size_t index);

// A file names its XML name space; inside an HTML page it would be noise.
enum class SvgUse { file, html };

// Throws Error where no series has a point that can be drawn.
std::string svg_of(const Chart& chart, SvgUse use);

}  // namespace convoy
