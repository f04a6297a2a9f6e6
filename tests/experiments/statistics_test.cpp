#include "experiments/statistics.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "core/error.h"

namespace convoy {
namespace {

// Critical values as printed in tables of Student's t (two-sided).
TEST(Statistics, CriticalValuesAreThoseOfThePrintedTables) {
  EXPECT_NEAR(student_t_critical(0.95, 1), 12.7062, 5e-5);
  EXPECT_NEAR(student_t_critical(0.95, 2), 4.30265, 5e-6);
  EXPECT_NEAR(student_t_critical(0.95, 3), 3.18245, 5e-6);
  EXPECT_NEAR(student_t_critical(0.95, 4), 2.77645, 5e-6);
  EXPECT_NEAR(student_t_critical(0.95, 9), 2.26216, 5e-6);
  EXPECT_NEAR(student_t_critical(0.95, 30), 2.04227, 5e-6);
  EXPECT_NEAR(student_t_critical(0.99, 5), 4.03214, 5e-6);
}

TEST(Statistics, FewDegreesOfFreedomAgreeWithTheClosedForms) {
  for (const double t : {0.1, 1.0, 3.0, 40.0}) {
    EXPECT_NEAR(student_t_two_sided(t, 1), 2 / M_PI * std::atan(t), 1e-14);
    EXPECT_NEAR(student_t_two_sided(t, 2), t / std::sqrt(2 + t * t), 1e-14);
  }
}

// Mean 2, sd 1, half-width 4.302653 / sqrt(3) = 2.484138.
TEST(Statistics, AnEstimateOfThreeValuesHasTheIntervalComputedByHand) {
  const Estimate three = estimate(std::array{1.0, 2.0, 3.0});
  EXPECT_EQ(three.n, 3);
  EXPECT_DOUBLE_EQ(three.mean, 2);
  EXPECT_DOUBLE_EQ(three.sd.value(), 1);
  EXPECT_NEAR(three.interval.value().low, 2 - 2.484138, 1e-6);
  EXPECT_NEAR(three.interval.value().high, 2 + 2.484138, 1e-6);
}

TEST(Statistics, OneValueHasNoSpreadAndNoValueIsRefused) {
  const Estimate one = estimate(std::array{1.5});
  EXPECT_DOUBLE_EQ(one.mean, 1.5);
  EXPECT_FALSE(one.sd.has_value());
  EXPECT_FALSE(one.interval.has_value());
  EXPECT_THROW(estimate({}), Error);
}

TEST(Statistics, TheMedianOfAnEvenNumberIsTheMeanOfTheMiddleTwo) {
  EXPECT_DOUBLE_EQ(median(std::array{4.0, 1.0, 3.0, 2.0}), 2.5);
  EXPECT_DOUBLE_EQ(median(std::array{9.0, 1.0, 2.0}), 2.0);
  EXPECT_TRUE(std::isnan(median({})));
}

}  // namespace
}  // namespace convoy
