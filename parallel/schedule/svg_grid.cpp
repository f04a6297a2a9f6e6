#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include "parallel/schedule/picture.h"

namespace convoy {
namespace {

struct Look {
  Op op;
  std::string_view name, fill, later_fill;  // the second for virtual stages after a rank's first
};

// Black on each fill has a contrast of 5 or more; hue and lightness both tell the operations apart.
constexpr std::array<Look, 4> kLooks = {{
    {Op::forward, "forward", "#7fb3e6", "#c6def4"},
    {Op::backward, "backward", "#f0a35e", "#f8d3b0"},
    {Op::backward_input, "input gradient", "#e58a8a", "#f5cccc"},
    {Op::backward_weight, "weight gradient", "#8fc98f", "#d0ead0"},
}};

constexpr double kLeft = 64, kTop = 58, kRow = 30, kRight = 16;
constexpr double kWidth = 1040, kWidestUnit = 26;  // pixels

class Grid {
 public:
  explicit Grid(const Timeline& timeline)
      : timeline_(timeline), unit_(std::min(kWidestUnit, kWidth / timeline.makespan)) {}

  std::string text() {
    open();
    for (int rank = 0; rank < timeline_.shape.ranks; ++rank) draw_rank(rank);
    draw_legend();
    return out_ + "</svg>\n";
  }

 private:
  template <class... Arguments>
  void put(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Arguments>(arguments)...);
  }

  double bottom() const { return kTop + kRow * timeline_.shape.ranks; }

  void open() {
    const PipelineShape& shape = timeline_.shape;
    const double width = std::max(kLeft + unit_ * timeline_.makespan + kRight, 640.0);
    const std::string title = fmt::format("{}: {} ranks, {} micro-batches", name_of(shape.kind),
                                          shape.ranks, shape.micro_batches);
    put("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
        "width=\"{0:.0f}\" height=\"{1:.0f}\" role=\"img\" font-family=\"system-ui, 'Segoe UI', "
        "'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#333\">\n<title>{2}</title>\n"
        "<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#fff\"/>\n"
        "<text x=\"14\" y=\"24\" font-size=\"15\" font-weight=\"600\" fill=\"#111\">{2}</text>\n",
        width, bottom() + 62, title);
    put("<text x=\"14\" y=\"43\" fill=\"#666\">step bubble {:.1f} %, span bubble {:.1f} %</text>\n",
        100 * timeline_.step_bubble(), 100 * timeline_.span_bubble());
  }

  void draw_rank(int rank) {
    const double y = kTop + kRow * rank;
    put("<text x=\"14\" y=\"{:.1f}\">rank {}</text>\n", y + kRow / 2 + 4, rank);
    put("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"#eee\"/>\n", kLeft, y + 2,
        unit_ * timeline_.makespan, kRow - 4);
    for (const TimedAction& timed : timeline_.compute[rank]) draw_cell(timed, y);
  }

  void draw_cell(const TimedAction& timed, double y) {
    const Action& action = timed.action;
    const Look& look = kLooks.at(static_cast<std::size_t>(action.op));
    const bool later = action.stage >= timeline_.shape.ranks;
    const double x = kLeft + unit_ * timed.start, width = unit_ * (timed.end - timed.start);
    put("<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\" "
        "stroke=\"#fff\"><title>stage {}, {}, micro-batch {}</title></rect>\n",
        x, y + 2, width, kRow - 4, later ? look.later_fill : look.fill, action.stage, look.name,
        action.micro_batch);
    const std::string label = std::to_string(action.micro_batch);
    constexpr double kDigit = 7;  // pixels
    if (width < kDigit * static_cast<double>(label.size()) + 2) return;
    put("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" fill=\"#000\">{}</text>\n",
        x + width / 2, y + kRow / 2 + 4, label);
  }

  bool occurs(Op op) const {
    const auto& list = timeline_.compute.front();
    return std::any_of(list.begin(), list.end(),
                       [op](const TimedAction& timed) { return timed.action.op == op; });
  }

  void draw_legend() {
    double x = kLeft;
    put("<text x=\"{}\" y=\"{}\" fill=\"#666\">time, in forward passes of one stage: 0 to {:g}"
        "</text>\n",
        kLeft, bottom() + 18, timeline_.makespan);
    const auto entry = [&](std::string_view fill, std::string_view name) {
      put("<rect x=\"{}\" y=\"{}\" width=\"14\" height=\"14\" fill=\"{}\"/>\n<text x=\"{}\" "
          "y=\"{}\">{}</text>\n",
          x, bottom() + 34, fill, x + 20, bottom() + 46, name);
      x += 44 + 7 * static_cast<double>(name.size());
    };
    for (const Look& look : kLooks) {
      if (occurs(look.op)) entry(look.fill, look.name);
    }
    entry("#eee", "idle");
    if (timeline_.shape.virtual_stages > 1) {
      put("<text x=\"{}\" y=\"{}\" fill=\"#666\">pale: a rank's later virtual stages</text>\n", x,
          bottom() + 46);
    }
  }

  const Timeline& timeline_;
  double unit_;  // pixels of one unit of time
  std::string out_;
};

}  // namespace

std::string svg_grid(const Timeline& timeline) { return Grid(timeline).text(); }

}  // namespace convoy
