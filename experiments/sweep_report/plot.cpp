#include "experiments/sweep_report/plot.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/sweep_report/html.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

// Inside <script> nothing may look like markup.
std::string json_text(const std::string& text) {
  std::string out;
  for (const char c : nlohmann::json(text).dump()) out += c == '<' ? "\\u003c" : std::string(1, c);
  return out;
}

// Six digits draw any screen.
std::string json_numbers(const std::vector<double>& values) {
  std::string out = "[";
  for (const double value : values) {
    if (out.size() > 1) out += ',';
    out += std::isfinite(value) ? fmt::format("{:.6g}", value) : "null";
  }
  return out + "]";
}

std::string json_axis(const PlotAxis& axis) {
  return fmt::format("{{\"title\":{},\"log\":{}}}", json_text(axis.title),
                     axis.scale == AxisScale::logarithmic);
}

const char* name_of(Mark mark) {
  switch (mark) {
    case Mark::line: return "line";
    case Mark::faint: return "faint";
    case Mark::dashed: return "dashed";
    case Mark::points: return "points";
    case Mark::point_line: return "point_line";
  }
  return "";
}

std::string json_series(const PlotSeries& series) {
  std::string x;
  for (const auto& values : series.x) x += (x.empty() ? "" : ",") + json_numbers(values);
  std::string out =
      fmt::format("{{\"group\":{},\"label\":{},\"colour\":{},\"mark\":\"{}\",\"x\":[{}],\"y\":{}",
                  json_text(series.group), json_text(series.label), series.colour,
                  name_of(series.mark), x, json_numbers(series.y));
  if (!series.low.empty())
    out +=
        fmt::format(",\"low\":{},\"high\":{}", json_numbers(series.low), json_numbers(series.high));
  return out + "}";
}

}  // namespace

bool Plot::empty() const {
  for (const PlotSeries& each : series)
    for (const double value : each.y)
      if (std::isfinite(value)) return false;
  return true;
}

std::string figure(const Plot& plot, const std::string& otherwise) {
  if (plot.empty()) return missing(otherwise);
  std::string axes, series;
  for (const PlotAxis& axis : plot.x) axes += (axes.empty() ? "" : ",") + json_axis(axis);
  for (const PlotSeries& each : plot.series)
    series += (series.empty() ? "" : ",\n") + json_series(each);
  return fmt::format(
      "<figure class=\"plot\" id=\"{0}\" aria-label=\"{1}\">\n"
      "<script type=\"application/json\">{{\"x\":[{2}],\"y\":{3},\"series\":[\n{4}]}}</script>\n"
      "<noscript><p class=\"missing\">This plot is drawn by the page's own script, which is "
      "switched off; its numbers stand below.</p></noscript>\n</figure>\n",
      escape_xml(plot.id), escape_xml(plot.title), axes, json_axis(plot.y), series);
}

}  // namespace convoy
