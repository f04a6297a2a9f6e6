// Simulated bubbles against theory.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "parallel/schedule/bubbles.h"
#include "tests/parallel/schedule_shapes.h"

namespace convoy {
namespace {

using test::describe;

// At unit costs every time is a whole number, exact in double; only the division rounds.
void expect_equal_up_to_division(double value, double theory) {
  EXPECT_NEAR(value, theory, 4 * std::numeric_limits<double>::epsilon() * (1 + theory));
}

bool fills_the_pipeline(const PipelineShape& shape) {
  switch (shape.kind) {
    case ScheduleKind::gpipe:
    case ScheduleKind::one_f_one_b: return true;
    case ScheduleKind::interleaved: return shape.micro_batches % shape.ranks == 0;
    case ScheduleKind::zb_h1: return shape.micro_batches >= shape.ranks;
    case ScheduleKind::zb_v: return shape.micro_batches >= 3 * shape.ranks;
  }
  return false;
}

TEST(StepBubble, IsThatOfTheoryForEveryScheduleOnceThePipelineIsFull) {
  int compared = 0;
  for (const PipelineShape& shape : test::many_shapes()) {
    if (!fills_the_pipeline(shape)) continue;
    SCOPED_TRACE(describe(shape));
    expect_equal_up_to_division(simulate(make_schedule(shape)).step_bubble(),
                                theoretical_step_bubble(shape));
    ++compared;
  }
  EXPECT_GT(compared, 400);
}

TEST(StepBubble, AtFourAndEightRanksIsTheFigureOfTheDocumentation) {
  const auto step = [](ScheduleKind kind, int p, int v, int m) {
    return bubbles_of({kind, p, v, m}).step;
  };
  expect_equal_up_to_division(step(ScheduleKind::gpipe, 4, 1, 8), 3.0 / 8);
  expect_equal_up_to_division(step(ScheduleKind::one_f_one_b, 4, 1, 8), 3.0 / 8);
  expect_equal_up_to_division(step(ScheduleKind::interleaved, 4, 2, 8), 3.0 / 16);
  expect_equal_up_to_division(step(ScheduleKind::zb_h1, 4, 1, 8), 3.0 / 24);
  expect_equal_up_to_division(step(ScheduleKind::zb_v, 4, 2, 8), 3.0 / 48);
  expect_equal_up_to_division(step(ScheduleKind::one_f_one_b, 8, 1, 32), 7.0 / 32);
  expect_equal_up_to_division(step(ScheduleKind::interleaved, 8, 4, 32), 7.0 / 128);
  expect_equal_up_to_division(step(ScheduleKind::zb_h1, 8, 1, 32), 7.0 / 96);
  expect_equal_up_to_division(step(ScheduleKind::zb_v, 8, 2, 32), 7.0 / 192);
}

TEST(SpanBubble, EqualsTheStepBubbleWhereTheFirstRankIsFirstAndLast) {
  for (const int p : {2, 4, 8}) {
    for (const PipelineShape& shape : test::shapes_of(p, 4 * p)) {
      if (shape.kind == ScheduleKind::zb_v) continue;
      SCOPED_TRACE(describe(shape));
      expect_equal_up_to_division(bubbles_of(shape).span, theoretical_span_bubble(shape));
    }
  }
}

// Theory has no idle tick inside a rank's span; the generator leaves one, of 6 m.
TEST(SpanBubble, OfZbVIsAtMostOneTick) {
  for (const int p : {2, 3, 4, 6, 8}) {
    for (const int m : {3 * p, 4 * p, 6 * p}) {
      const PipelineShape shape{ScheduleKind::zb_v, p, 2, m};
      SCOPED_TRACE(describe(shape));
      EXPECT_LE(std::lround(bubbles_of(shape).span * 6 * m), 1);
    }
  }
  const BubbleRow row = bubbles_of({ScheduleKind::zb_v, 8, 2, 32});
  EXPECT_LE(row.span, 0.02);
  EXPECT_LE(row.step, 0.04);
}

TEST(Simulation, ChargesTransfersUnequalCostsAndUnequalStages) {
  // One micro-batch: every stage in turn, down and up, with two transfers.
  const Schedule one = make_schedule({ScheduleKind::one_f_one_b, 2, 1, 1});
  const Costs costs{.forward = 1,
                    .backward_input = 2,
                    .backward_weight = 4,
                    .transfer = 0.5,
                    .stage_scale = {1, 8}};
  const Timeline timeline = simulate(one, costs);
  EXPECT_EQ(timeline.makespan, (1 + 2 + 4) * (1 + 8) + 2 * 0.5);
  EXPECT_EQ(timeline.ideal, (1 + 2 + 4) * (1 + 8) / 2.0);
  ASSERT_EQ(timeline.sends[0].size(), 1U);
  EXPECT_EQ(timeline.sends[0][0].start, 1);
  EXPECT_EQ(timeline.sends[0][0].end, 1.5);
  EXPECT_EQ(timeline.compute[1][0].start, 1.5);
}

TEST(Simulation, NamesTheActionThatCanNeverRun) {
  Schedule schedule = make_schedule({ScheduleKind::one_f_one_b, 2, 1, 2});
  std::swap(schedule.actions[1][0], schedule.actions[1][1]);  // 1B0 before 1F0
  const std::string error = test::error_of([&] { simulate(schedule); });
  EXPECT_NE(error.find("rank 1 waits for ever for the data of 1B0"), std::string::npos) << error;
}

}  // namespace
}  // namespace convoy
