#include "experiments/chart_axis.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "core/error.h"

namespace convoy {
namespace {

double to_measure(double value, Scale scale) {
  return scale == Scale::logarithmic ? std::log10(value) : value;
}

double from_measure(double measure, Scale scale) {
  return scale == Scale::logarithmic ? std::pow(10.0, measure) : measure;
}

// 10 to the power as text, with superscript digits: 10¹².
std::string power_of_ten(int power) {
  static constexpr std::array<std::string_view, 10> kDigits = {"⁰", "¹", "²", "³", "⁴",
                                                               "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = power < 0 ? "10⁻" : "10";
  for (const char digit : std::to_string(std::abs(power))) text += kDigits[digit - '0'];
  return text;
}

std::string log_label(int mantissa, int power) {
  if (power >= -3 && power <= 3) return fmt::format("{:g}", mantissa * std::pow(10.0, power));
  return mantissa == 1 ? power_of_ten(power) : fmt::format("{}×{}", mantissa, power_of_ten(power));
}

// The least 1, 2 or 5 times a power of ten that is not below `least`.
double round_step(double least) {
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  for (const double mantissa : {1.0, 2.0, 5.0})
    if (mantissa * power >= least * (1 - 1e-9)) return mantissa * power;
  return 10 * power;
}

// Powers of 1000 are taken out of the labels from 10,000 up and below 0.001.
int factored_power(double largest) {
  if (largest >= 1e-3 && largest < 1e4) return 0;
  return 3 * static_cast<int>(std::floor(std::log10(largest) / 3));
}

std::vector<Tick> log_ticks_at(Range range, std::span<const int> mantissas) {
  std::vector<Tick> ticks;
  const int first = static_cast<int>(std::floor(std::log10(range.low)));
  const int last = static_cast<int>(std::ceil(std::log10(range.high)));
  for (int power = first; power <= last; ++power) {
    for (const int mantissa : mantissas) {
      const double value = mantissa * std::pow(10.0, power);
      if (value >= range.low * (1 - 1e-9) && value <= range.high * (1 + 1e-9))
        ticks.push_back({value, log_label(mantissa, power)});
    }
  }
  return ticks;
}

void keep_every(std::vector<Tick>& ticks, std::size_t stride) {
  std::vector<Tick> kept;
  for (std::size_t i = 0; i < ticks.size(); i += stride) kept.push_back(ticks[i]);
  ticks = std::move(kept);
}

}  // namespace

bool drawable(double value, Scale scale) {
  return std::isfinite(value) && (scale == Scale::linear || value > 0);
}

Range range_of(std::span<const double> values, Scale scale, double margin) {
  CHECK(!values.empty(), "an axis needs at least one value");
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  const double low = to_measure(*least, scale);
  const double high = to_measure(*most, scale);
  const double single = scale == Scale::logarithmic ? 0.3 : std::max(0.1 * std::abs(low), 1e-6);
  const double widen = high > low ? margin * (high - low) : single;
  return {from_measure(low - widen, scale), from_measure(high + widen, scale)};
}

Ticks linear_ticks(Range range, int wanted) {
  CHECK(range.high > range.low && wanted > 0, "range ", range.low, "..", range.high);
  const double step = round_step(0.7 * (range.high - range.low) / wanted);
  const int power = factored_power(std::max(std::abs(range.low), std::abs(range.high)));
  const double unit = std::pow(10.0, power);
  const int decimals = std::max(0, static_cast<int>(-std::floor(std::log10(step / unit) + 1e-9)));
  Ticks result;
  if (power != 0) result.factor = "×" + power_of_ten(power);
  const double slack = 1e-9 * step;
  for (double i = std::ceil((range.low - slack) / step); i * step <= range.high + slack; ++i)
    result.ticks.push_back({i * step, fmt::format("{:.{}f}", i * step / unit + 0.0, decimals)});
  return result;
}

Ticks log_ticks(Range range, int wanted) {
  CHECK(range.low > 0 && range.high > range.low, "range ", range.low, "..", range.high);
  static constexpr std::array kPowers = {1};
  static constexpr std::array kHalves = {1, 2, 5};
  static constexpr std::array kAll = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::array<std::span<const int>, 3> choices = {kPowers, kHalves, kAll};
  for (const auto mantissas : choices) {
    std::vector<Tick> ticks = log_ticks_at(range, mantissas);
    if (ticks.size() < 3) continue;
    if (mantissas.size() == 1)
      keep_every(ticks, 1 + ticks.size() / static_cast<std::size_t>(wanted + 1));
    return {std::move(ticks), ""};
  }
  return linear_ticks(range, wanted);
}

Ticks ticks_of(Range range, Scale scale, int wanted) {
  return scale == Scale::logarithmic ? log_ticks(range, wanted) : linear_ticks(range, wanted);
}

AxisMap::AxisMap(Range range, Scale scale, double from, double to)
    : scale_(scale),
      low_(to_measure(range.low, scale)),
      high_(to_measure(range.high, scale)),
      from_(from),
      to_(to) {
  CHECK(high_ > low_, "an axis from ", range.low, " to ", range.high);
}

double AxisMap::operator()(double value) const {
  return from_ + (to_measure(value, scale_) - low_) / (high_ - low_) * (to_ - from_);
}

}  // namespace convoy
