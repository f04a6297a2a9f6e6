// The optimizer through the backend: what decide_update writes, and that adamw obeys it, bit for
// bit where nothing may change.
#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Everything one step of the optimizer touches.
struct Optimizer {
  Workbench bench;
  OwnedTensor control, sum, loss;

  explicit Optimizer(DType dtype = DType::f64)
      : bench(dtype),
        control(bench.backend(), DType::f64, {StepControl::kCount}),
        sum(bench.backend(), DType::f64, {1}),
        loss(bench.backend(), DType::f64, {1}) {}

  double& operator[](StepControl::Index i) { return control.view().data<double>()[i]; }
  void decide(double sum_of_squares, double loss_value, const UpdateRules& rules) {
    *sum.view().data<double>() = sum_of_squares;
    *loss.view().data<double>() = loss_value;
    bench.backend().decide_update(control.view(), sum.view(), loss.view(), rules);
  }
};

TEST(DecideUpdate, ReadsTheNormAndClipsThroughTheBackend) {
  Optimizer o;
  o[StepControl::learning_rate] = 0.125;
  o.decide(16, 2, {.clip = 1, .spike_factor = 0});
  EXPECT_EQ(o[StepControl::gradient_norm], 4);
  EXPECT_EQ(o[StepControl::update_scale], 0.25);
  EXPECT_EQ(o[StepControl::norm_average], 4);  // the first norm starts the average
  EXPECT_EQ(o[StepControl::adam_steps], 1);
  EXPECT_EQ(o[StepControl::learning_rate], 0.125) << "the host's";
  o.decide(1, 2, {.clip = 1, .spike_factor = 0});  // exactly at the limit: as it is
  EXPECT_EQ(o[StepControl::update_scale], 1);
  EXPECT_EQ(o[StepControl::adam_steps], 2);
  o.decide(0, 2, {.clip = 1, .spike_factor = 3});  // a norm of 0 is a good step
  EXPECT_EQ(o[StepControl::skip], 0);
  EXPECT_EQ(o[StepControl::update_scale], 1);
}

TEST(DecideUpdate, ABadStepLeavesTheAverageTheScaleAndTheStepCount) {
  for (const auto& [sum, loss] : {std::pair{kNaN, 1.0},
                                  {kInfinity, 1.0},
                                  {1.0, kNaN},
                                  {1.0, kInfinity},
                                  {1.0, -kInfinity},
                                  {10000.0, 1.0}}) {
    SCOPED_TRACE(concat("sum of squares ", sum, ", loss ", loss));
    Optimizer o;
    const UpdateRules rules{.clip = 0.5, .spike_factor = 10};
    for (int i = 0; i < 3; ++i) o.decide(1, 1, rules);
    const double average = o[StepControl::norm_average], scale = o[StepControl::update_scale];
    o.decide(sum, loss, rules);
    o.decide(sum, loss, rules);
    EXPECT_EQ(o[StepControl::skip], 1);
    EXPECT_EQ(o[StepControl::skipped_in_row], 2);
    EXPECT_EQ(o[StepControl::skipped_total], 2);
    EXPECT_EQ(o[StepControl::adam_steps], 3);
    EXPECT_EQ(o[StepControl::norm_average], average);
    EXPECT_EQ(o[StepControl::update_scale], scale);
    o.decide(1, 1, rules);
    EXPECT_EQ(o[StepControl::skip], 0);
    EXPECT_EQ(o[StepControl::skipped_in_row], 0);
    EXPECT_EQ(o[StepControl::skipped_total], 2);
    EXPECT_EQ(o[StepControl::adam_steps], 4);
  }
}

TEST(DecideUpdate, ASpikeIsMeasuredAgainstTheAverageOfGoodSteps) {
  Optimizer o;
  const UpdateRules rules{.clip = 0, .spike_factor = 2};
  o.decide(1e12, 1, rules);  // no average yet: nothing to compare with
  EXPECT_EQ(o[StepControl::skip], 0);
  Optimizer p;
  for (int i = 0; i < 4; ++i) p.decide(1, 1, rules);
  p.decide(4, 1, rules);  // exactly twice the average is not above it
  EXPECT_EQ(p[StepControl::skip], 0);
  EXPECT_GT(p[StepControl::norm_average], 1);
  EXPECT_LT(p[StepControl::norm_average], 2);
  p.decide(9, 1, rules);
  EXPECT_EQ(p[StepControl::skip], 1);
}

// Values, moments and gradients with NaN and Inf among them, as a bad step has.
TEST(AdamW, ASkippedStepLeavesEveryBitThoughGradientsAreNotFinite) {
  for (const auto dtype : {DType::f64, DType::f32}) {
    Optimizer o(dtype);
    Workbench& bench = o.bench;
    Tensor x = bench.random({53}), m = bench.random({53}), v = bench.random({53});
    Tensor g = bench.output({53});  // all NaN
    bench.backend().add_sum_of_squares(o.sum.view(), g);
    o[StepControl::learning_rate] = 1;
    const double sum = *o.sum.view().data<double>();
    EXPECT_TRUE(std::isnan(sum));
    const auto before = std::vector{values(x), values(m), values(v)};
    o.decide(sum, 1, {1, 0});
    bench.backend().adamw(x, {}, m, v, g, o.control.view(), {0.9, 0.95, 1e-8, 0.1});
    EXPECT_EQ(before, (std::vector{values(x), values(m), values(v)}));
  }
}

// Decide, then update, over several steps with a skipped one between, against a double reference
// that never sees the skipped step. A value moves by at most about 1.2 rates a step, with some 20
// roundings each, and the rate's size bounds what it moves.
void expect_reference(DType dtype) {
  constexpr std::int64_t kSize = 101;
  constexpr double kRate = 0.01;
  const AdamWSettings settings{0.9, 0.95, 1e-6, 0.1};
  Optimizer o(dtype);
  Workbench& bench = o.bench;
  Tensor x = bench.random({kSize}), m = bench.zeros({kSize}), v = bench.zeros({kSize});
  std::vector<double> value = values(x), moment1(kSize, 0), moment2(kSize, 0), error(kSize, 0);
  int good = 0;
  for (int step = 1; step <= 6; ++step) {
    o[StepControl::learning_rate] = kRate;
    const bool bad = step == 3;
    Tensor g = bad ? bench.output({kSize}) : bench.random({kSize});
    double squares = 0;
    for (const double element : values(g)) squares += element * element;
    o.decide(squares, 1, {.clip = 2, .spike_factor = 0});
    bench.backend().adamw(x, {}, m, v, g, o.control.view(), settings);
    ASSERT_EQ(o[StepControl::skip], bad ? 1 : 0);
    if (bad) continue;
    ++good;
    const double scale = 2 / std::sqrt(squares);
    for (std::size_t i = 0; i < kSize; ++i) {
      const double gradient = scale * at(g, 0, static_cast<std::int64_t>(i));
      moment1[i] = 0.9 * moment1[i] + 0.1 * gradient;
      moment2[i] = 0.95 * moment2[i] + 0.05 * gradient * gradient;
      const double mean = moment1[i] / (1 - std::pow(0.9, good));
      const double root = std::sqrt(moment2[i] / (1 - std::pow(0.95, good)));
      // 1 / (root + epsilon) turns roundings of terms of the mean that cancel into at most
      // 1 / (1 - 0.9^t) times their share; steps are below 8 in magnitude for these few steps.
      const double update = mean / (root + 1e-6) + 0.1 * value[i];
      value[i] -= kRate * update;
      error[i] += unit_roundoff(dtype) * (20 * kRate * (8 + std::abs(update)) + std::abs(value[i]));
      ASSERT_NEAR(at(x, 0, static_cast<std::int64_t>(i)), value[i], error[i]) << step << ", " << i;
    }
  }
}

TEST(AdamW, FollowsADoubleReferenceAcrossASkippedStepInF64) { expect_reference(DType::f64); }
TEST(AdamW, FollowsADoubleReferenceAcrossASkippedStepInF32) { expect_reference(DType::f32); }

TEST(SumOfSquares, AddsBlocksOfLongTensorsInF64) {
  Workbench bench(DType::f32);
  // 4096 elements are summed in f32, blocks of them in f64: the bound does not grow with the size.
  Tensor x = bench.random({3 * 4096 + 1});
  OwnedTensor sum(bench.backend(), DType::f64, {1});
  *sum.view().data<double>() = 2.5;
  bench.backend().add_sum_of_squares(sum.view(), x);
  double expected = 2.5;
  for (const double value : values(x)) expected += value * value;
  EXPECT_NEAR(*sum.view().data<double>(), expected, sum_bound(DType::f32, 4096, expected));
}

}  // namespace
}  // namespace convoy::test
