// A plot of the page as data: C++ says what stands where, the page's script draws it, so that a
// reader can zoom, take logarithms and read values off. The numbers that matter stand beside it as
// a table.
#pragma once

#include <string>
#include <vector>

namespace convoy {

enum class Mark { line, faint, dashed, points, point_line };

// `x` holds one list for each x axis of the plot. NaN is a gap. `low` and `high`, where not empty,
// are a band around a line and whiskers of points.
struct PlotSeries {
  std::string group;  // series of one group share a colour and an entry of the legend
  std::string label;  // what the pointer says
  std::size_t colour = 0;
  Mark mark = Mark::line;
  std::vector<std::vector<double>> x = {};
  std::vector<double> y = {};
  std::vector<double> low = {}, high = {};
};

enum class AxisScale { linear, logarithmic };

struct PlotAxis {
  std::string title;
  AxisScale scale = AxisScale::linear;
};

struct Plot {
  std::string id;
  std::string title;        // what a reader who cannot see it is told
  std::vector<PlotAxis> x;  // more than one: the reader chooses
  PlotAxis y;
  std::vector<PlotSeries> series = {};

  bool empty() const;  // nothing finite to draw
};

// A <figure> that carries the data; or, where the plot is empty, the sentence `otherwise`.
std::string figure(const Plot& plot, const std::string& otherwise);

}  // namespace convoy
