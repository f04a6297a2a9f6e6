#include "experiments/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "experiments/chart_layout.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

// Draws one chart; every method appends one kind of element to the text.
class Drawing {
 public:
  Drawing(const Chart& chart, SvgUse use)
      : chart_(chart),
        use_(use),
        layout_(lay_out(chart)),
        frame_(layout_.frame),
        x_(layout_.x_range, chart.x.scale, frame_.left, frame_.right),
        y_(layout_.y_range, chart.y.scale, frame_.bottom, frame_.top) {}

  std::string text() {
    open();
    draw_x_axis();
    draw_y_axis();
    for (const Series& series : chart_.series) draw_band(series);
    for (const Series& series : chart_.series)
      if (series.stroke == Stroke::faint) draw_line(series);
    for (const Series& series : chart_.series)
      if (series.stroke == Stroke::strong) draw_line(series);
    draw_legend();
    draw_end_labels();
    return out_ + "</svg>\n";
  }

 private:
  template <class... Arguments>
  void put(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Arguments>(arguments)...);
  }

  void open() {
    const char* name_space = use_ == SvgUse::file ? "xmlns=\"http://www.w3.org/2000/svg\" " : "";
    put("<svg {3}viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
        "height=\"{1}\" role=\"img\" font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', "
        "sans-serif\" font-size=\"12\" fill=\"#333\">\n<title>{2}</title>\n"
        "<rect width=\"{0}\" height=\"{1}\" fill=\"#fff\"/>\n"
        "<text x=\"14\" y=\"24\" font-size=\"15\" font-weight=\"600\" fill=\"#111\">{2}</text>\n",
        chart_.width, chart_.height, escape_xml(chart_.title), name_space);
    if (!chart_.note.empty())
      put("<text x=\"14\" y=\"43\" fill=\"#666\">{}</text>\n", escape_xml(chart_.note));
  }

  void draw_x_axis() {
    const Ticks ticks = ticks_of(layout_.x_range, chart_.x.scale,
                                 static_cast<int>((frame_.right - frame_.left) / 90));
    double free_from = 0;
    for (const Tick& tick : ticks.ticks) {
      const double x = x_(tick.value);
      put("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\" "
          "stroke=\"#e4e4e4\"/>\n",
          x, frame_.top, frame_.bottom);
      const double half = kCharacterWidth / 2 * static_cast<double>(display_width(tick.label));
      if (x - half < free_from) continue;  // the grid line stays, its label would touch the last
      free_from = x + half + 6;
      put("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", x,
          frame_.bottom + 18, tick.label);
    }
    put("<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#888\"/>\n",
        frame_.left, frame_.right, frame_.bottom);
    put("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
        (frame_.left + frame_.right) / 2, frame_.bottom + 40, axis_title(chart_.x, ticks));
  }

  void draw_y_axis() {
    const Ticks ticks = ticks_of(layout_.y_range, chart_.y.scale,
                                 static_cast<int>((frame_.bottom - frame_.top) / 45));
    double free_below = frame_.bottom + 20;
    for (const Tick& tick : ticks.ticks) {
      const double y = y_(tick.value);
      put("<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" "
          "stroke=\"#e4e4e4\"/>\n",
          frame_.left, frame_.right, y);
      if (y > free_below - 14) continue;
      free_below = y;
      put("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", frame_.left - 7, y + 4,
          tick.label);
    }
    put("<text transform=\"translate(17 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        (frame_.top + frame_.bottom) / 2, axis_title(chart_.y, ticks));
  }

  static std::string axis_title(const ChartAxis& axis, const Ticks& ticks) {
    const std::string factor = ticks.factor.empty() ? "" : " (" + ticks.factor + ")";
    return escape_xml(axis.title + factor);
  }

  void draw_band(const Series& series) {
    const auto band = drawable_band(series, chart_);
    if (band.size() < 2) return;
    put("<path d=\"");
    for (std::size_t i = 0; i < band.size(); ++i)
      put("{}{:.1f},{:.1f}", i == 0 ? 'M' : 'L', x_(band[i].x), y_(band[i].high));
    for (auto p = band.rbegin(); p != band.rend(); ++p) put("L{:.1f},{:.1f}", x_(p->x), y_(p->low));
    put("Z\" fill=\"{}\" fill-opacity=\"0.18\"/>\n", series.colour);
  }

  void draw_line(const Series& series) {
    const auto points = drawable_points(series, chart_);
    if (points.empty()) return;
    if (points.size() == 1) return draw_marker(points.front(), series.colour);
    put("<path d=\"");
    for (std::size_t i = 0; i < points.size(); ++i)
      put("{}{:.1f},{:.1f}", i == 0 ? 'M' : 'L', x_(points[i].x), y_(points[i].y));
    const bool faint = series.stroke == Stroke::faint;
    put("\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\" "
        "stroke-linejoin=\"round\"/>\n",
        series.colour, faint ? "1" : "2", faint ? "0.4" : "1");
    if (!faint) draw_marker(points.back(), series.colour);
  }

  void draw_marker(Point point, const std::string& colour) {
    put("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"{}\"/>\n", x_(point.x), y_(point.y),
        colour);
  }

  void draw_legend() {
    for (const LegendEntry& entry : layout_.legend) {
      put("<line x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"{3}\" "
          "stroke-width=\"3\"/>\n",
          entry.x, entry.x + 24, entry.y + 6, entry.series->colour);
      put("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", entry.x + 31, entry.y + 10,
          escape_xml(entry.series->label));
    }
  }

  // Labels keep 14 px between their lines: sorted from the top, each is pushed below the one
  // before.
  void draw_end_labels() {
    struct Label {
      Point at;
      const Series* series;
    };
    std::vector<Label> labels;
    for (const Series& series : chart_.series) {
      const auto points = drawable_points(series, chart_);
      if (!series.end_label.empty() && !points.empty())
        labels.push_back({{x_(points.back().x), y_(points.back().y)}, &series});
    }
    std::stable_sort(labels.begin(), labels.end(),
                     [](const Label& a, const Label& b) { return a.at.y < b.at.y; });
    double free_from = frame_.top;
    for (const Label& label : labels) {
      const double y = std::max(label.at.y + 4, free_from);
      free_from = y + 14;
      put("<text x=\"{:.1f}\" y=\"{:.1f}\" fill=\"{}\" font-weight=\"600\">{}</text>\n",
          label.at.x + 8, y, label.series->colour, escape_xml(label.series->end_label));
    }
  }

  const Chart& chart_;
  SvgUse use_;
  ChartLayout layout_;
  Frame frame_;
  AxisMap x_, y_;
  std::string out_;
};

}  // namespace

std::string chart_colour(std::size_t index) {
  static constexpr std::array<const char*, 7> kColours = {
      "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"};
  return kColours[index % kColours.size()];
}

std::string svg_of(const Chart& chart, SvgUse use) { return Drawing(chart, use).text(); }

}  // namespace convoy
