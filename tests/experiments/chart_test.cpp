#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "experiments/svg_chart.h"
#include "experiments/text_format.h"
#include "tests/experiments/xml_check.h"

namespace convoy {
namespace {

using testing::xml_fault;

std::vector<std::string> labels(const Ticks& ticks) {
  std::vector<std::string> result;
  for (const Tick& tick : ticks.ticks) result.push_back(tick.label);
  return result;
}

using Labels = std::vector<std::string>;

Chart two_lines() {
  return {.title = "a < b & \"c\"",
          .note = "",
          .x = {"tokens", Scale::linear},
          .y = {"loss (nats)", Scale::linear},
          .series = {{.label = "first", .colour = chart_colour(0), .points = {{0, 3}, {1, 2}}},
                     {.label = "second <&>",
                      .colour = chart_colour(1),
                      .points = {{0, 3}, {1, 1}},
                      .band = {{0, 2.9, 3.1}, {1, 0.9, 1.1}},
                      .end_label = "1.0"}}};
}

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Ticks, LinearStepsAreRound) {
  EXPECT_EQ(labels(linear_ticks({0, 1}, 5)), (Labels{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(labels(linear_ticks({1.31, 2.48}, 6)),
            (Labels{"1.4", "1.6", "1.8", "2.0", "2.2", "2.4"}));
  EXPECT_EQ(labels(linear_ticks({-0.3, 0.3}, 3)), (Labels{"-0.2", "0.0", "0.2"}));
}

TEST(Ticks, LargeNumbersLeaveAPowerOfThousandToTheTitle) {
  const Ticks ticks = linear_ticks({0, 4e6}, 4);
  EXPECT_EQ(labels(ticks), (Labels{"0", "1", "2", "3", "4"}));
  EXPECT_EQ(ticks.factor, "×10⁶");
}

TEST(Ticks, LogTicksThinOutAsTheRangeGrows) {
  EXPECT_EQ(labels(log_ticks({1, 1e4}, 8)), (Labels{"1", "10", "100", "1000", "10⁴"}));
  EXPECT_EQ(labels(log_ticks({9e10, 2.5e12}, 8)),
            (Labels{"10¹¹", "2×10¹¹", "5×10¹¹", "10¹²", "2×10¹²"}));
  EXPECT_EQ(labels(log_ticks({1.5, 6.2}, 8)), (Labels{"2", "3", "4", "5", "6"}));
  EXPECT_EQ(log_ticks({1, 1e30}, 8).ticks.size(), 8U);
}

TEST(Ticks, AShortLogRangeFallsBackToLinearSteps) {
  EXPECT_EQ(labels(log_ticks({1.1, 1.52}, 4)), (Labels{"1.1", "1.2", "1.3", "1.4", "1.5"}));
}

TEST(Ticks, OneValueGetsARangeAroundIt) {
  const Range linear = range_of(std::array{5.0}, Scale::linear, 0.05);
  EXPECT_LT(linear.low, 5);
  EXPECT_GT(linear.high, 5);
  const Range logarithmic = range_of(std::array{1e12}, Scale::logarithmic, 0.05);
  EXPECT_GT(logarithmic.low, 0);
  EXPECT_GT(logarithmic.high, 1e12);
}

TEST(SvgChart, IsWellFormedXmlAndEscapesItsLabels) {
  const std::string svg = svg_of(two_lines(), SvgUse::file);
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_NE(svg.find("second &lt;&amp;&gt;"), std::string::npos);
  EXPECT_NE(svg.find("viewBox=\"0 0 860 480\""), std::string::npos);
}

TEST(SvgChart, TheSameChartGivesTheSameBytes) {
  EXPECT_EQ(svg_of(two_lines(), SvgUse::file), svg_of(two_lines(), SvgUse::file));
}

TEST(SvgChart, PointsThatCannotBeDrawnAreLeftOut) {
  Chart chart = two_lines();
  chart.y.scale = Scale::logarithmic;
  chart.series[0].points = {{0, 3}, {0.2, std::nan("")}, {0.4, -1}, {0.6, 1.0 / 0.0}, {1, 2}};
  const std::string svg = svg_of(chart, SvgUse::file);
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(SvgChart, ASinglePointIsAMarker) {
  Chart chart = two_lines();
  chart.series.resize(1);
  chart.series[0].points = {{1, 2}};
  const std::string svg = svg_of(chart, SvgUse::file);
  EXPECT_EQ(occurrences(svg, "<circle"), 1U);
  EXPECT_EQ(occurrences(svg, "<path"), 0U);
}

TEST(SvgChart, NothingToDrawIsAnErrorThatNamesTheChart) {
  Chart chart = two_lines();
  for (Series& series : chart.series) series.points.clear();
  EXPECT_THROW(svg_of(chart, SvgUse::file), Error);
}

// The checker itself must bite, or the tests above show nothing.
TEST(XmlCheck, FindsWhatIsMalformed) {
  EXPECT_EQ(xml_fault("<a b=\"1\"><c/>x &amp; y</a>"), "");
  for (const char* bad : {"<a><b></a></b>", "<a b=1></a>", "<a b=\"1\" b=\"2\"/>", "<a>x & y</a>",
                          "<a>", "</a>", "<a", "<a b=\"<\"/>"})
    EXPECT_NE(xml_fault(bad), "") << bad;
}

TEST(TextFormat, NumbersAreGroupedAndUnknownsAreADash) {
  EXPECT_EQ(grouped(3997696), "3,997,696");
  EXPECT_EQ(grouped(-1000), "-1,000");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(scientific(2.3117e13), "2.31e13");
  EXPECT_EQ(fixed(std::numeric_limits<double>::quiet_NaN(), 3), "-");
  EXPECT_EQ(display_width("10¹²"), 4U);
}

}  // namespace
}  // namespace convoy
