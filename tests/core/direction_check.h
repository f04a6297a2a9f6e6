// Gradients against central differences along one random direction of all inputs at once, with a
// tolerance that follows from the step, the curvature and the rounding of the loss.
#pragma once

#include "tests/core/op_test_tools.h"

namespace convoy::test {

struct Slot {
  Tensor value, gradient;
  double deviation;  // of the direction; like that of the values
};

// `loss` runs the forward pass; `loss_error` bounds its rounding error. With h = cbrt(u) the
// difference quotient is wrong by at most h^2 / 6 |f'''|, of order u^(2/3), and loss_error / h, of
// the same order when loss_error is of order u. f''' is measured by a wide difference, which is
// exact where f is a cubic, as a convolution is; six times its share covers the other losses.
inline void expect_directional_derivative(const std::vector<Slot>& slots, double loss_error,
                                          const std::function<double()>& loss) {
  std::vector<std::vector<double>> start, direction;
  double expected = 0, magnitude = 0;
  for (std::size_t s = 0; s < slots.size(); ++s) {
    const RandomStream stream(s + 1, "direction");
    start.push_back(values(slots[s].value));
    const auto gradient = values(slots[s].gradient);
    direction.emplace_back();
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      direction[s].push_back(slots[s].deviation * stream.normal(i));
      expected += direction[s][i] * gradient[i];
      magnitude += std::abs(direction[s][i] * gradient[i]);
    }
  }
  const auto loss_at = [&](double step) {
    for (std::size_t s = 0; s < slots.size(); ++s) {
      Workbench::for_each(slots[s].value, [&](std::int64_t i, std::int64_t j, double) {
        const auto k = static_cast<std::size_t>(i * slots[s].value.cols() + j);
        return start[s][k] + step * direction[s][k];
      });
    }
    return loss();
  };
  const double u = unit_roundoff(DType::f64), h = std::cbrt(u), wide = 1.0 / 64;
  const double third =
      (loss_at(2 * wide) - 2 * loss_at(wide) + 2 * loss_at(-wide) - loss_at(-2 * wide)) /
      (2 * wide * wide * wide);
  const double measured = (loss_at(h) - loss_at(-h)) / (2 * h);
  loss_at(0);
  const double bound = h * h * std::abs(third) + loss_error / h + u * magnitude;
  EXPECT_NEAR(expected, measured, bound);
  EXPECT_LT(bound, 1e-5 * (1 + magnitude)) << "a bound too wide to say anything";
}

}  // namespace convoy::test
