// What the passes add, and where.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "parallel/schedule/text.h"
#include "parallel/schedule/validate.h"
#include "tests/parallel/schedule_shapes.h"

namespace convoy {
namespace {

using test::describe;

std::vector<Action> compute_of(const std::vector<Action>& list) {
  std::vector<Action> compute;
  std::copy_if(list.begin(), list.end(), std::back_inserter(compute),
               [](const Action& a) { return is_compute(a.op); });
  return compute;
}

TEST(Passes, LeaveTheComputeActionsAsTheyAre) {
  for (const PipelineShape& shape : test::shapes_of(4, 9)) {
    const Schedule plain = make_schedule(shape), complete = test::complete_schedule(shape);
    for (int rank = 0; rank < shape.ranks; ++rank) {
      EXPECT_EQ(compute_of(complete.actions[rank]), plain.actions[rank]) << describe(shape);
    }
  }
}

TEST(Transfers, StandInOneOrderForBothEndsOfEachPairOfRanks) {
  for (const PipelineShape& shape : test::shapes_of(5, 12)) {
    SCOPED_TRACE(describe(shape));
    const Schedule schedule = add_transfers(make_schedule(shape), {.transfer = 0.3});
    std::map<std::pair<int, int>, std::vector<Action>> sent, received;  // (from, to)
    for (int rank = 0; rank < shape.ranks; ++rank) {
      for (const Action& a : schedule.actions[rank]) {
        if (!is_transfer(a.op)) continue;
        const int peer = shape.rank_of(counterpart(a).stage);
        if (is_send(a.op)) {
          sent[{rank, peer}].push_back(a);
        } else {
          received[{peer, rank}].push_back(counterpart(a));
        }
      }
    }
    EXPECT_FALSE(sent.empty());
    EXPECT_EQ(sent, received);
  }
}

TEST(Transfers, AreSentAsSoonAsTheDataIsThere) {
  const Schedule schedule = add_transfers(make_schedule({ScheduleKind::one_f_one_b, 3, 1, 4}));
  for (const auto& list : schedule.actions) {
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (!is_send(list[i].op)) continue;
      std::size_t before = i;  // the last compute action before the send made its data
      while (!is_compute(list[before].op)) --before;
      EXPECT_EQ(list[before].stage, list[i].stage) << to_text(list[i]);
      EXPECT_EQ(list[before].micro_batch, list[i].micro_batch) << to_text(list[i]);
    }
  }
}

TEST(WeightGathers, AreMadeOnceWhereWeightsAreKept) {
  const Schedule schedule =
      add_weight_gathers(make_schedule({ScheduleKind::interleaved, 2, 2, 4}), {.prefetch = 1});
  EXPECT_EQ(to_text(schedule).substr(0, to_text(schedule).find("\nrank 1")),
            "schedule interleaved ranks 2 virtual_stages 2 micro_batches 4\n"
            "rank 0: 0GATHER 0F0 2GATHER 0F1 2F0 2F1 0F2 2B0 0F3 2B1 2F2 0B0 2F3 0B1 2B2 2B3 "
            "2RELEASE 0B2 0B3 0RELEASE");
}

TEST(WeightGathers, ReleaseWhatIsNotUsedForLong) {
  const Schedule schedule = add_weight_gathers(make_schedule({ScheduleKind::interleaved, 2, 2, 4}),
                                               {.prefetch = 0, .keep = 0});
  const std::string text = to_text(schedule);
  EXPECT_EQ(text.find("rank 0: 0GATHER 0F0 0F1 0RELEASE 2GATHER 2F0 2F1 2RELEASE 0GATHER 0F2"),
            text.find("rank 0:"))
      << text;
  const std::vector<Action>& list = schedule.actions[0];
  int held = 0, most = 0;
  for (const Action& a : list) {
    if (a.op == Op::gather_weights) most = std::max(most, ++held);
    if (a.op == Op::release_weights) --held;
  }
  EXPECT_EQ(most, 1);
}

TEST(GradientReductions, FollowTheLastWeightGradientOfEachStage) {
  for (const PipelineShape& shape : test::shapes_of(3, 7)) {
    SCOPED_TRACE(describe(shape));
    const Schedule schedule = add_gradient_reductions(make_schedule(shape));
    for (int rank = 0; rank < shape.ranks; ++rank) {
      const auto& list = schedule.actions[rank];
      for (const int stage : shape.stages_of(rank)) {
        const Action reduce{Op::reduce_gradients, stage};
        ASSERT_EQ(std::count(list.begin(), list.end(), reduce), 1);
        const auto at = std::find(list.begin(), list.end(), reduce);
        EXPECT_TRUE(ends_slot((at - 1)->op));
        EXPECT_EQ((at - 1)->stage, stage);
        EXPECT_TRUE(std::none_of(
            at, list.end(), [&](const Action& a) { return a.stage == stage && ends_slot(a.op); }));
      }
    }
  }
}

}  // namespace
}  // namespace convoy
