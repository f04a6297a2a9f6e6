// Activation memory: what the schedules promise, and an assignment in which no two that are alive
// share a piece.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>

#include "parallel/schedule/memory_plan.h"
#include "parallel/schedule/split_layers.h"
#include "tests/parallel/schedule_shapes.h"

namespace convoy {
namespace {

using test::describe;

MemoryPlan plan_of(const PipelineShape& shape) {
  return MemoryPlan(add_transfers(make_schedule(shape)));
}

TEST(PeakSlots, AreThoseOfTheSchedule) {
  for (const PipelineShape& shape : test::many_shapes()) {
    SCOPED_TRACE(describe(shape));
    const MemoryPlan plan = plan_of(shape);
    const int p = shape.ranks, v = shape.virtual_stages, m = shape.micro_batches;
    for (int rank = 0; rank < p; ++rank) {
      const int peak = plan.peak_slots(rank);
      switch (shape.kind) {
        case ScheduleKind::gpipe: EXPECT_EQ(peak, m); break;
        case ScheduleKind::one_f_one_b: EXPECT_EQ(peak, std::min(m, p - rank)); break;
        case ScheduleKind::zb_h1: EXPECT_EQ(peak, std::min(m, p)); break;
        case ScheduleKind::zb_v: EXPECT_LE(peak, 2 * std::min(m, p)); break;
        case ScheduleKind::interleaved:
          if (m % p == 0) {
            EXPECT_EQ(peak, std::min(m * v, (v - 1) * p + 2 * (p - 1 - rank) + 1));
          } else {
            EXPECT_LE(peak, std::min(m * v, (v - 1) * p + 2 * (p - 1 - rank) + 1));
          }
          break;
      }
    }
  }
}

TEST(Slots, AreNeverSharedByTwoMicroBatchesThatAreAlive) {
  for (const int p : {1, 2, 3, 4, 8}) {
    for (const int m : {1, 3, 8, 17}) {
      for (const PipelineShape& shape : test::shapes_of(p, m)) {
        SCOPED_TRACE(describe(shape));
        const Schedule schedule = add_transfers(make_schedule(shape));
        const MemoryPlan plan(schedule);
        for (const auto& list : schedule.actions) {
          std::map<std::pair<int, int>, int> holder;  // (stage, slot) -> micro-batch
          for (const Action& a : list) {
            if (!is_compute(a.op)) continue;
            const int slot = plan.slot(a.stage, a.micro_batch);
            ASSERT_LT(slot, plan.slots_of(a.stage));
            const auto [at, fresh] = holder.emplace(std::pair(a.stage, slot), a.micro_batch);
            ASSERT_EQ(fresh, a.op == Op::forward);
            ASSERT_EQ(at->second, a.micro_batch);
            if (ends_slot(a.op)) holder.erase(at);
          }
          EXPECT_TRUE(holder.empty());
        }
      }
    }
  }
}

// An activation is held from its arrival, so there are at least as many of them as slots.
TEST(ReceivedTensors, LiveFromTheirArrivalToTheEndOfTheSlot) {
  const PipelineShape shape{ScheduleKind::one_f_one_b, 4, 1, 8};
  const Schedule schedule = add_transfers(make_schedule(shape));
  const MemoryPlan plan(schedule);
  EXPECT_EQ(plan.activations_of(0), 0);
  EXPECT_EQ(plan.gradients_of(3), 0);
  for (const int stage : {1, 2, 3}) EXPECT_GE(plan.activations_of(stage), plan.slots_of(stage));
  for (int rank = 0; rank < shape.ranks; ++rank) {
    std::map<int, int> holder;
    for (const Action& a : schedule.actions[rank]) {
      if (a.op == Op::receive_activation) {
        const int number = plan.activation(a.stage, a.micro_batch);
        ASSERT_LT(number, plan.activations_of(a.stage));
        ASSERT_TRUE(holder.emplace(number, a.micro_batch).second);
      }
      if (a.op == Op::backward && rank > 0) {
        ASSERT_EQ(holder.at(plan.activation(a.stage, a.micro_batch)), a.micro_batch);
        holder.erase(plan.activation(a.stage, a.micro_batch));
      }
    }
  }
}

TEST(ReceivedTensors, ArePassedOnInsideARankWithoutATransfer) {
  const Schedule schedule = add_transfers(make_schedule({ScheduleKind::zb_v, 2, 2, 5}));
  const MemoryPlan plan(schedule);
  std::map<int, int> holder;  // number -> micro-batch, of what stage 1 hands to stage 2 on rank 1
  for (const Action& a : schedule.actions[1]) {
    EXPECT_NE(a, (Action{Op::send_activation, 1, a.micro_batch}));
    if (a.stage == 1 && a.op == Op::forward) {
      ASSERT_TRUE(holder.emplace(plan.activation(2, a.micro_batch), a.micro_batch).second);
    }
    if (a.stage == 2 && ends_slot(a.op)) holder.erase(plan.activation(2, a.micro_batch));
  }
  EXPECT_TRUE(holder.empty());
  EXPECT_GE(plan.activations_of(2), 1);
  EXPECT_LE(plan.activations_of(2), 5);
}

TEST(Layers, AreSplitEvenlyAndTheMiddleTakesWhatIsLeftOver) {
  for (int stages = 1; stages <= 9; ++stages) {
    for (int layers = stages; layers <= 40; ++layers) {
      const auto ranges = split_layers(layers, stages);
      ASSERT_EQ(ranges.size(), static_cast<std::size_t>(stages));
      int next = 0;
      for (const LayerRange& range : ranges) {
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.count, layers / stages);
        EXPECT_LE(range.count, (layers + stages - 1) / stages);
        next += range.count;
      }
      EXPECT_EQ(next, layers);
      EXPECT_LE(ranges.back().count, ranges.front().count);
    }
  }
  EXPECT_EQ(split_layers(6, 4), (std::vector<LayerRange>{{0, 1}, {1, 2}, {3, 2}, {5, 1}}));
  EXPECT_EQ(split_layers(7, 4), (std::vector<LayerRange>{{0, 2}, {2, 2}, {4, 2}, {6, 1}}));
}

TEST(Layers, FewerThanStagesAreRefusedWithTheRemedy) {
  const std::string error = test::error_of([] { split_layers(3, 4); });
  EXPECT_NE(error.find("set pp x virtual_stages to at most 3"), std::string::npos) << error;
}

}  // namespace
}  // namespace convoy
