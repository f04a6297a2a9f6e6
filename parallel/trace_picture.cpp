#include "parallel/trace_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

namespace convoy {
namespace {

// What spans look alike. Black on each fill has a contrast of 5 or more, and lightness tells them
// apart too.
struct Look {
  std::string_view name, fill;
};
enum Family : std::size_t { matmul, weight_gradient, convolution, other, blocked, transfer };
constexpr std::array<Look, 6> kLooks = {{
    {"matmul", "#7fb3e6"},
    {"weight gradient", "#8fc98f"},
    {"convolution", "#f0a35e"},
    {"other operations", "#c9c9c9"},
    {"blocked", "#fff"},
    {"in flight", "#b08fd8"},
}};

constexpr double kLeft = 128, kTop = 44, kLane = 22, kGap = 8, kCaption = 24;
constexpr double kWidth = 780, kRight = 16, kFoot = 62;  // pixels
constexpr double kThinnest = 0.4;                        // pixels; thinner gaps are not drawn

Family family_of(const Trace::Span& span) {
  if (span.kind == Trace::Kind::transfer) return transfer;
  if (span.kind == Trace::Kind::wait) return blocked;
  if (span.name == "matmul") return matmul;
  if (span.name == "matmul_add" || span.name == "conv_backward_weight") return weight_gradient;
  return span.name.starts_with("conv_") ? convolution : other;
}

struct Bar {
  Family family;
  double start, end;
};

// The spans of a lane in order, neighbours of one family joined.
std::vector<Bar> bars_of(const Trace& trace, bool communication, double thinnest) {
  std::vector<Bar> bars;
  for (const auto& span : trace.spans()) {
    if (span.kind == Trace::Kind::action) continue;
    if ((span.kind == Trace::Kind::transfer) != communication) continue;
    bars.push_back({family_of(span), span.start, span.end});
  }
  std::stable_sort(bars.begin(), bars.end(),
                   [](const Bar& a, const Bar& b) { return a.start < b.start; });
  std::vector<Bar> joined;
  for (const Bar& bar : bars) {
    const bool continues = !joined.empty() && !communication &&
                           joined.back().family == bar.family &&
                           bar.start - joined.back().end < thinnest;
    if (continues) {
      joined.back().end = bar.end;
    } else if (bar.end - bar.start >= thinnest) {
      joined.push_back(bar);
    }
  }
  return joined;
}

class Picture {
 public:
  Picture(const std::string& title, const std::vector<TracePanel>& panels) : panels_(panels) {
    double height = kTop + kFoot;
    for (const auto& panel : panels) {
      height += kCaption + rank_height() * static_cast<double>(panel.ranks.size());
      for (const auto& rank : panel.ranks) {
        for (const auto& span : rank.spans()) seconds_ = std::max(seconds_, span.end);
      }
    }
    put("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
        "width=\"{0:.0f}\" height=\"{1:.0f}\" role=\"img\" font-family=\"system-ui, 'Segoe UI', "
        "'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#333\">\n<title>{2}</title>\n"
        "<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"#fff\"/>\n"
        "<text x=\"14\" y=\"24\" font-size=\"15\" font-weight=\"600\" fill=\"#111\">{2}</text>\n",
        kLeft + kWidth + kRight, height, title);
  }

  std::string text() {
    double y = kTop;
    for (const auto& panel : panels_) {
      put("<text x=\"14\" y=\"{:.0f}\" fill=\"#111\">{}</text>\n", y + 15, panel.caption);
      y += kCaption;
      for (std::size_t rank = 0; rank < panel.ranks.size(); ++rank, y += rank_height()) {
        draw_lane(panel.ranks[rank], concat_label(rank, "compute"), false, y);
        draw_lane(panel.ranks[rank], "communication", true, y + kLane);
      }
    }
    draw_legend(y);
    return out_ + "</svg>\n";
  }

 private:
  template <class... Arguments>
  void put(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    fmt::format_to(std::back_inserter(out_), format, std::forward<Arguments>(arguments)...);
  }

  static double rank_height() { return 2 * kLane + kGap; }
  static std::string concat_label(std::size_t rank, std::string_view what) {
    return fmt::format("rank {}: {}", rank, what);
  }
  double pixels(double seconds) const { return kWidth * seconds / seconds_; }

  void draw_lane(const Trace& trace, const std::string& label, bool communication, double y) {
    put("<text x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\" fill=\"#666\">{}</text>\n", kLeft - 8,
        y + kLane / 2 + 4, label);
    put("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#f3f3f3\"/>\n", kLeft, y + 1,
        kWidth, kLane - 2);
    for (const Bar& bar : bars_of(trace, communication, kThinnest * seconds_ / kWidth)) {
      draw_bar(bar.family, kLeft + pixels(bar.start), y + 1, pixels(bar.end - bar.start),
               kLane - 2);
    }
  }

  void draw_bar(Family family, double x, double y, double width, double height) {
    const bool outlined = family == blocked || family == transfer;
    put("<rect x=\"{:.1f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.0f}\" fill=\"{}\"{}/>\n", x,
        y, width, height, kLooks.at(family).fill,
        outlined ? (family == blocked ? " stroke=\"#c33\" stroke-dasharray=\"3 2\""
                                      : " stroke=\"#fff\" stroke-width=\"0.6\"")
                 : "");
  }

  bool occurs(Family family) const {
    for (const auto& panel : panels_) {
      for (const auto& rank : panel.ranks) {
        for (const auto& span : rank.spans()) {
          if (span.kind != Trace::Kind::action && family_of(span) == family) return true;
        }
      }
    }
    return false;
  }

  void draw_legend(double y) {
    put("<text x=\"{}\" y=\"{:.0f}\" fill=\"#666\">time: 0 to {:.1f} ms</text>\n", kLeft, y + 14,
        1e3 * seconds_);
    double x = kLeft;
    for (std::size_t family = 0; family < kLooks.size(); ++family) {
      if (!occurs(static_cast<Family>(family))) continue;
      draw_bar(static_cast<Family>(family), x, y + 28, 14, 14);
      put("<text x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n", x + 20, y + 40, kLooks.at(family).name);
      x += 48 + 6.5 * static_cast<double>(kLooks.at(family).name.size());
    }
  }

  const std::vector<TracePanel>& panels_;
  double seconds_ = 0;  // of the longest trace
  std::string out_;
};

}  // namespace

std::string svg_trace(const std::string& title, const std::vector<TracePanel>& panels) {
  return Picture(title, panels).text();
}

}  // namespace convoy
