#include "core/update_decision.h"
#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Control {
  double values[StepControl::kCount] = {};

  double& operator[](StepControl::Index i) { return values[i]; }
  void decide(double norm, double loss, const UpdateRules& rules) {
    decide_update_element(values, norm * norm, loss, rules);
  }
};

TEST(UpdateDecision, ClipsToTheLargestNorm) {
  Control c;
  c.decide(4, 1, {.clip = 1, .spike_factor = 0});
  EXPECT_DOUBLE_EQ(c[StepControl::gradient_norm], 4);
  EXPECT_DOUBLE_EQ(c[StepControl::update_scale], 0.25);
  c.decide(0.5, 1, {.clip = 1, .spike_factor = 0});
  EXPECT_DOUBLE_EQ(c[StepControl::update_scale], 1);
  c.decide(4, 1, {.clip = 0, .spike_factor = 0});
  EXPECT_DOUBLE_EQ(c[StepControl::update_scale], 1);
  EXPECT_EQ(c[StepControl::adam_steps], 3);
}

TEST(UpdateDecision, WhatIsNotFiniteIsSkippedAndCounted) {
  Control c;
  for (const auto& [norm, loss] : {std::pair{kNaN, 1.0}, {kInfinity, 1.0}, {1.0, kNaN}}) {
    c.decide(norm, loss, {1, 0});
    EXPECT_EQ(c[StepControl::skip], 1);
  }
  EXPECT_EQ(c[StepControl::skipped_in_row], 3);
  EXPECT_EQ(c[StepControl::adam_steps], 0);
  c.decide(1, 1, {1, 0});
  EXPECT_EQ(c[StepControl::skip], 0);
  EXPECT_EQ(c[StepControl::skipped_in_row], 0);
  EXPECT_EQ(c[StepControl::skipped_total], 3);
}

TEST(UpdateDecision, ASpikeAboveTheAverageIsSkippedWhereAsked) {
  Control c;
  for (int i = 0; i < 5; ++i) c.decide(1, 1, {0, 3});
  c.decide(2.9, 1, {0, 3});
  EXPECT_EQ(c[StepControl::skip], 0);
  const double average = c[StepControl::norm_average];
  c.decide(10, 1, {0, 3});
  EXPECT_EQ(c[StepControl::skip], 1);
  EXPECT_EQ(c[StepControl::norm_average], average);
  c.decide(10, 1, {0, 0});
  EXPECT_EQ(c[StepControl::skip], 0);
}

TEST(AdamW, FollowsItsFormulaForSeveralSteps) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    Workbench bench(dtype);
    constexpr std::int64_t kSize = 37;
    Tensor x = bench.random({kSize}), m = bench.zeros({kSize}), v = bench.zeros({kSize});
    OwnedTensor control(bench.backend(), DType::f64, {StepControl::kCount});
    double* c = control.view().data<double>();
    auto expected = values(x);
    std::vector<double> em(kSize, 0), ev(kSize, 0);
    for (int step = 1; step <= 3; ++step) {
      Tensor g = bench.random({kSize});
      c[StepControl::learning_rate] = 0.1;
      c[StepControl::adam_steps] = step;
      c[StepControl::update_scale] = 0.5;
      bench.backend().adamw(x, {}, m, v, g, control.view(), {0.9, 0.95, 1e-8, 0.1});
      for (std::size_t i = 0; i < kSize; ++i) {
        const double gradient = 0.5 * at(g, 0, static_cast<std::int64_t>(i));
        em[i] = 0.9 * em[i] + 0.1 * gradient;
        ev[i] = 0.95 * ev[i] + 0.05 * gradient * gradient;
        const double mean = em[i] / (1 - std::pow(0.9, step));
        const double square = ev[i] / (1 - std::pow(0.95, step));
        expected[i] -= 0.1 * (mean / (std::sqrt(square) + 1e-8) + 0.1 * expected[i]);
        ASSERT_NEAR(at(x, 0, static_cast<std::int64_t>(i)), expected[i],
                    sum_bound(dtype, 20 * step, std::abs(expected[i]) + 1));
      }
    }
  }
}

TEST(AdamW, ASkippedStepTouchesNothing) {
  Workbench bench;
  Tensor x = bench.random({9}), m = bench.random({9}), v = bench.random({9}), g = bench.random({9});
  const auto before = std::vector{values(x), values(m), values(v)};
  OwnedTensor control(bench.backend(), DType::f64, {StepControl::kCount});
  control.view().data<double>()[StepControl::learning_rate] = 1;
  control.view().data<double>()[StepControl::skip] = 1;
  bench.backend().adamw(x, {}, m, v, g, control.view(), {0.9, 0.95, 1e-8, 0.1});
  EXPECT_EQ(before, (std::vector{values(x), values(m), values(v)}));
}

TEST(SumOfSquares, AddsUpOverCalls) {
  Workbench bench(DType::f32);
  Tensor a = bench.random({5003}), b = bench.random({7});
  OwnedTensor sum(bench.backend(), DType::f64, {1});
  bench.backend().add_sum_of_squares(sum.view(), a);
  bench.backend().add_sum_of_squares(sum.view(), b);
  double expected = 0;
  for (const auto& t : {a, b}) {
    for (const double value : values(t)) expected += value * value;
  }
  EXPECT_NEAR(*sum.view().data<double>(), expected, sum_bound(DType::f32, 4096, expected));
}

}  // namespace
}  // namespace convoy::test
