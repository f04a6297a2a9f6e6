// Every schedule can be run, and what cannot be run is refused by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "parallel/schedule/text.h"
#include "parallel/schedule/validate.h"
#include "tests/parallel/schedule_shapes.h"

namespace convoy {
namespace {

using test::describe;
using test::error_of;

void expect_in(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << text << "\" lacks \"" << part << "\"";
}

Schedule small(ScheduleKind kind = ScheduleKind::one_f_one_b) {
  return add_transfers(make_schedule({kind, 2, 1, 3}));
}

void remove(Schedule& schedule, int rank, const std::string& action) {
  auto& list = schedule.actions[rank];
  const auto at = std::find(list.begin(), list.end(), parse_action(action));
  ASSERT_NE(at, list.end()) << action;
  list.erase(at);
}

void insert_before(Schedule& schedule, int rank, const std::string& action,
                   const std::string& place) {
  auto& list = schedule.actions[rank];
  const auto at = std::find(list.begin(), list.end(), parse_action(place));
  ASSERT_NE(at, list.end()) << place;
  list.insert(at, parse_action(action));
}

TEST(Schedules, AllOfManySizesRunWithBlockingSends) {
  const auto shapes = test::many_shapes();
  EXPECT_GT(shapes.size(), 800U);
  for (const PipelineShape& shape : shapes) {
    SCOPED_TRACE(describe(shape));
    ASSERT_NO_THROW(validate(test::complete_schedule(shape)));
  }
}

// The order of transfers comes from the costs; any costs must give one that works.
TEST(Schedules, RunWithBlockingSendsWhateverTheCosts) {
  for (const int p : {2, 3, 4, 8}) {
    for (const int m : {1, 5, 8, 16}) {
      for (const PipelineShape& shape : test::shapes_of(p, m)) {
        Costs costs{.forward = 0.7, .backward_input = 1.9, .backward_weight = 0.3, .transfer = 0.4};
        for (int s = 0; s < shape.stages(); ++s) costs.stage_scale.push_back(1 + 0.37 * (s % 3));
        SCOPED_TRACE(describe(shape));
        ASSERT_NO_THROW(validate(test::complete_schedule(shape, costs)));
      }
    }
  }
}

// Why transfers have a pass of their own: with each receive just before its use and each send right
// after its data, most schedules block for ever.
TEST(Schedules, DeadlockIfEachReceiveStandsJustBeforeItsUse) {
  int deadlocks = 0, all = 0;
  for (const int p : {2, 4, 8}) {
    for (const PipelineShape& shape : test::shapes_of(p, 2 * p)) {
      Schedule schedule = make_schedule(shape);
      for (int rank = 0; rank < p; ++rank) {
        std::vector<Action> list;
        const auto elsewhere = [&](int s) {
          return s >= 0 && s < shape.stages() && shape.rank_of(s) != rank;
        };
        for (const Action& a : schedule.actions[rank]) {
          const bool down = a.op == Op::forward, up = gives_input_gradient(a.op);
          const int before = a.stage - 1, after = a.stage + 1, j = a.micro_batch;
          if (down && elsewhere(before)) list.push_back({Op::receive_activation, a.stage, j});
          if (up && elsewhere(after)) list.push_back({Op::receive_gradient, a.stage, j});
          list.push_back(a);
          if (down && elsewhere(after)) list.push_back({Op::send_activation, a.stage, j});
          if (up && elsewhere(before)) list.push_back({Op::send_gradient, a.stage, j});
        }
        schedule.actions[rank] = list;
      }
      const std::string error = error_of([&] { validate(schedule); });
      ++all;
      if (error.find("deadlock") != std::string::npos) ++deadlocks;
    }
  }
  EXPECT_GT(2 * deadlocks, all) << deadlocks << " of " << all;
}

TEST(Validation, NamesTheRanksAndActionsOfADeadlock) {
  Schedule schedule = parse_schedule(
      "schedule 1f1b ranks 2 virtual_stages 1 micro_batches 2\n"
      "rank 0: 0F0 0SA0 0F1 0SA1 0RG0 0B0 0RG1 0B1\n"
      "rank 1: 1RA0 1F0 1B0 1SG0 1RA1 1F1 1B1 1SG1\n");
  const std::string error = error_of([&] { validate(schedule); });
  expect_in(error, "rank 0 waits in 0SA1 (action 3) for rank 1 to reach 1RA1, which is at 1SG0");
  expect_in(error, "rank 1 waits in 1SG0 (action 3) for rank 0 to reach 0RG0, which is at 0SA1");
}

TEST(Validation, NamesARankThatEndsBeforeItsMessageIsTaken) {
  Schedule schedule = small();
  remove(schedule, 0, "0RG2");
  expect_in(error_of([&] { validate(schedule); }), "0B2 (action ");
  schedule = small();
  remove(schedule, 0, "0SA2");
  expect_in(error_of([&] { validate(schedule); }), "rank 1 waits in 1RA2");
}

TEST(Validation, RefusesAPassThatIsMissingDoubleOrOutOfOrder) {
  const auto refusal = [](auto&& spoil) {
    Schedule schedule = small(ScheduleKind::zb_h1);
    spoil(schedule);
    return error_of([&] { validate(schedule); });
  };
  EXPECT_EQ(refusal([](Schedule&) {}), "");
  expect_in(refusal([](Schedule& s) { remove(s, 1, "1W2"); }), "rank 1: 1W2");
  expect_in(refusal([](Schedule& s) { remove(s, 1, "1W2"); }), "is missing");
  expect_in(refusal([](Schedule& s) { insert_before(s, 0, "0F1", "0I2"); }), "is there twice");
  expect_in(refusal([](Schedule& s) { insert_before(s, 1, "1F1", "1RA1"); }), "runs before 1RA1");
  expect_in(refusal([](Schedule& s) { insert_before(s, 1, "1W1", "1I1"); }), "runs before 1I1");
  expect_in(refusal([](Schedule& s) { insert_before(s, 1, "1I0", "1F0"); }), "runs before 1F0");
  expect_in(refusal([](Schedule& s) { insert_before(s, 0, "0SA2", "0F2"); }), "sends before 0F2");
  expect_in(refusal([](Schedule& s) { insert_before(s, 0, "0F3", "0F2"); }),
            "micro-batches 0 to 2");
  expect_in(refusal([](Schedule& s) { insert_before(s, 0, "1F0", "0F0"); }), "does not own");
  expect_in(refusal([](Schedule& s) { insert_before(s, 1, "1B0", "1W2"); }), "beside I or W");
  expect_in(refusal([](Schedule& s) { insert_before(s, 1, "1SA0", "1I0"); }), "no stage");
}

TEST(Validation, RefusesTransfersInsideARank) {
  Schedule schedule = add_transfers(make_schedule({ScheduleKind::zb_v, 2, 2, 2}));
  insert_before(schedule, 1, "1SA0", "2F0");
  expect_in(error_of([&] { validate(schedule); }), "two stages of one rank");
}

TEST(Validation, RefusesWeightsThatAreUsedWhileReleasedAndReductionsTooEarly) {
  const PipelineShape shape{ScheduleKind::zb_v, 2, 2, 4};
  const auto refusal = [&](auto&& spoil) {
    Schedule schedule = test::complete_schedule(shape);
    spoil(schedule);
    return error_of([&] { validate(schedule); });
  };
  EXPECT_EQ(refusal([](Schedule&) {}), "");
  expect_in(refusal([](Schedule& s) { remove(s, 0, "0GATHER"); }), "0F0");
  expect_in(refusal([](Schedule& s) { insert_before(s, 0, "3RELEASE", "3F0"); }),
            "without the stage's weights");
  expect_in(refusal([](Schedule& s) { insert_before(s, 0, "0GATHER", "0F0"); }), "are held");
  expect_in(refusal([](Schedule& s) { insert_before(s, 0, "0REDUCE", "0W3"); }), "is missing");
}

TEST(Validation, WantsGatheredWeightsReleasedInTheEnd) {
  Schedule schedule = test::complete_schedule({ScheduleKind::gpipe, 1, 1, 2});
  auto& list = schedule.actions[0];
  list.erase(std::find(list.rbegin(), list.rend(), parse_action("0RELEASE")).base() - 1);
  expect_in(error_of([&] { validate(schedule); }), "never released");
}

TEST(Shapes, ThatNoScheduleFitsAreRefusedWithTheRemedy) {
  const auto refusal = [](const PipelineShape& shape) {
    return error_of([&] { make_schedule(shape); });
  };
  expect_in(refusal({ScheduleKind::one_f_one_b, 4, 2, 8}), "schedule to \"interleaved\"");
  expect_in(refusal({ScheduleKind::zb_v, 4, 1, 8}), "set virtual_stages to 2");
  expect_in(refusal({ScheduleKind::interleaved, 4, 1, 8}), "set virtual_stages to 2 or more");
  expect_in(refusal({ScheduleKind::gpipe, 0, 1, 8}), "set pp to 1 or more");
  expect_in(refusal({ScheduleKind::gpipe, 2, 1, 0}), "raise batch_tokens");
  expect_in(error_of([] { parse_schedule_kind("2f2b"); }), "gpipe, 1f1b, interleaved, zb-h1, zb-v");
}

TEST(Shapes, OwnEachStageOnceAndZbVFoldsTheModelIntoAV) {
  for (const PipelineShape& shape : test::shapes_of(4, 8)) {
    std::vector<int> owners(shape.stages(), 0);
    for (int rank = 0; rank < shape.ranks; ++rank) {
      for (const int stage : shape.stages_of(rank)) {
        EXPECT_EQ(shape.rank_of(stage), rank);
        ++owners[stage];
      }
    }
    EXPECT_EQ(owners, std::vector<int>(shape.stages(), 1)) << describe(shape);
  }
  const PipelineShape v{ScheduleKind::zb_v, 4, 2, 8};
  EXPECT_EQ(v.stages_of(0), (std::vector<int>{0, 7}));
  EXPECT_EQ(v.stages_of(3), (std::vector<int>{3, 4}));
  const PipelineShape around{ScheduleKind::interleaved, 4, 2, 8};
  EXPECT_EQ(around.stages_of(1), (std::vector<int>{1, 5}));
}

}  // namespace
}  // namespace convoy
