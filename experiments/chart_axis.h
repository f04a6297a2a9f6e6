// Axes of a chart: where the ticks stand, what they are called, and which pixel a value falls on.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace convoy {

enum class Scale { linear, logarithmic };

struct Range {
  double low = 0;
  double high = 1;
};

struct Tick {
  double value = 0;
  std::string label;
};

// The power of 1000 that the labels leave out stands once, in `factor` ("x10^6" typeset), which
// belongs into the axis title; empty where nothing was left out.
struct Ticks {
  std::vector<Tick> ticks;
  std::string factor;
};

// Can this value stand on such an axis? Logarithms need it positive, and nothing shows infinity.
bool drawable(double value, Scale scale);

// The smallest range that holds all values, widened by `margin` of its length (in the axis's own
// measure) at both ends. One value alone gets a range around it.
Range range_of(std::span<const double> values, Scale scale, double margin);

// Round steps of 1, 2 or 5 times a power of ten; about `wanted` ticks.
Ticks linear_ticks(Range range, int wanted);

// Powers of ten, with their multiples 2 and 5, then all multiples, as the range gets shorter; below
// that linear steps, so that an axis never stands without numbers.
Ticks log_ticks(Range range, int wanted);

Ticks ticks_of(Range range, Scale scale, int wanted);

// Maps values of `range` onto pixels `from`..`to`.
class AxisMap {
 public:
  AxisMap(Range range, Scale scale, double from, double to);
  double operator()(double value) const;

 private:
  Scale scale_;
  double low_, high_, from_, to_;
};

}  // namespace convoy
