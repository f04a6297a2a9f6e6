// The executor on ranks that are threads: what it runs is what the schedule says, and what comes
// out is what one rank computes with no pipeline at all, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "parallel/schedule/text.h"
#include "parallel/thread_communicator.h"
#include "tests/parallel/scale_stage.h"
#include "tests/parallel/schedule_shapes.h"

namespace convoy {
namespace {

using test::describe;
using test::kColumns;
using test::kRows;

std::unique_ptr<Backend> cpu() { return make_cpu_backend(NumericsMode::fast); }

struct Outcome {
  std::vector<double> gradients;                   // [stage]
  std::vector<std::vector<TimedAction>> executed;  // [rank]
};

Outcome run_schedule(const Schedule& schedule, const ExecutorOptions& options = {}, int steps = 1) {
  const PipelineShape& shape = schedule.shape;
  Outcome outcome{std::vector<double>(shape.stages()),
                  std::vector<std::vector<TimedAction>>(shape.ranks)};
  const auto body = [&](Communicator& ranks) {
    const test::RankOutcome own = test::run_rank(schedule, ranks, options, steps);
    const std::vector<int> stages = shape.stages_of(ranks.rank());
    for (std::size_t i = 0; i < stages.size(); ++i) outcome.gradients[stages[i]] = own.gradients[i];
    outcome.executed[ranks.rank()] = own.executed;
  };
  if (shape.ranks == 1) {
    body(*make_self_communicator());
  } else {
    run_on_threads(shape.ranks, body);
  }
  return outcome;
}

void expect_close(const std::vector<double>& values, const std::vector<double>& reference,
                  int micro_batches) {
  ASSERT_EQ(values.size(), reference.size());
  const auto stages = static_cast<int>(values.size());
  for (int i = 0; i < stages; ++i) {
    EXPECT_NEAR(values[i], reference[i],
                test::gradient_tolerance(reference[i], stages, micro_batches))
        << "stage " << i;
  }
}

std::vector<Action> actions_of(const std::vector<TimedAction>& executed) {
  std::vector<Action> actions;
  for (const TimedAction& timed : executed) actions.push_back(timed.action);
  return actions;
}

template <class Keep>
std::vector<Action> only(const std::vector<Action>& list, Keep&& keep) {
  std::vector<Action> kept;
  std::copy_if(list.begin(), list.end(), std::back_inserter(kept), keep);
  return kept;
}

TEST(PipelineExecutor, ComputesWhatOneRankComputesUnderEverySchedule) {
  for (const int p : {1, 2, 3, 4}) {
    for (const int m : {1, 3, 8}) {
      for (const PipelineShape& shape : test::shapes_of(p, m)) {
        SCOPED_TRACE(describe(shape));
        const Outcome outcome = run_schedule(test::complete_schedule(shape));
        expect_close(outcome.gradients, test::gradients_without_pipeline(shape.stages(), m), m);
      }
    }
  }
}

// Every schedule sums a stage's weight gradients in the order of the micro-batches.
TEST(PipelineExecutor, GivesTheSameBitsUnderEverySchedule) {
  const auto gradients = [](ScheduleKind kind, int p, int v) {
    return run_schedule(test::complete_schedule({kind, p, v, 8})).gradients;
  };
  const auto one_rank = gradients(ScheduleKind::interleaved, 1, 4);
  EXPECT_EQ(gradients(ScheduleKind::gpipe, 4, 1), one_rank);
  EXPECT_EQ(gradients(ScheduleKind::one_f_one_b, 4, 1), one_rank);
  EXPECT_EQ(gradients(ScheduleKind::interleaved, 2, 2), one_rank);
  EXPECT_EQ(gradients(ScheduleKind::zb_h1, 4, 1), one_rank);
  EXPECT_EQ(gradients(ScheduleKind::zb_v, 2, 2), one_rank);
}

TEST(PipelineExecutor, ExecutesTheScheduleActionForAction) {
  for (const int p : {2, 4}) {
    for (const PipelineShape& shape : test::shapes_of(p, 8)) {
      SCOPED_TRACE(describe(shape));
      const Schedule schedule = test::complete_schedule(shape);
      const Outcome outcome = run_schedule(schedule, {.receive_ahead = 0});
      const Timeline simulated = simulate(schedule);
      for (int rank = 0; rank < p; ++rank) {
        const auto executed = actions_of(outcome.executed[rank]);
        EXPECT_EQ(executed, schedule.actions[rank]);
        EXPECT_EQ(only(executed, [](const Action& a) { return is_compute(a.op); }),
                  actions_of(simulated.compute[rank]));
      }
    }
  }
}

TEST(PipelineExecutor, PostsReceivesEarlyWithoutChangingAnyOrder) {
  const auto is_receiving = [](const Action& a) { return is_receive(a.op); };
  const auto is_other = [](const Action& a) { return !is_receive(a.op); };
  for (const PipelineShape& shape : test::shapes_of(4, 8)) {
    SCOPED_TRACE(describe(shape));
    const Schedule schedule = test::complete_schedule(shape);
    const Outcome outcome = run_schedule(schedule, {.receive_ahead = 2});
    int early = 0;
    for (int rank = 0; rank < shape.ranks; ++rank) {
      const auto& list = schedule.actions[rank];
      const auto executed = actions_of(outcome.executed[rank]);
      EXPECT_EQ(only(executed, is_other), only(list, is_other));
      EXPECT_EQ(only(executed, is_receiving), only(list, is_receiving));
      if (executed != list) ++early;
    }
    EXPECT_GT(early, 0);
  }
}

TEST(PipelineExecutor, RunsStepAfterStep) {
  const Schedule schedule = test::complete_schedule({ScheduleKind::zb_v, 3, 2, 5});
  const auto once = run_schedule(schedule).gradients;
  const auto thrice = run_schedule(schedule, {}, 3).gradients;
  for (std::size_t i = 0; i < once.size(); ++i) {
    const double roundings = 3.0 * 5 * kRows * kColumns;
    EXPECT_NEAR(thrice[i], 3 * once[i],
                roundings * std::numeric_limits<double>::epsilon() * thrice[i]);
  }
}

TEST(PipelineExecutor, NamesTheActionThatFailed) {
  class Failing final : public Stage {
   public:
    void forward(Visit visit, Tensor, Tensor) override {
      CHECK(visit.micro_batch != 1, "out of luck");
    }
    void backward_input(Visit, Tensor, Tensor) override {}
    void backward_weight(Visit) override {}
  };
  const auto backend = cpu();
  const auto self = make_self_communicator();
  Failing stage;
  PipelineExecutor executor(make_schedule({ScheduleKind::gpipe, 1, 1, 3}), *self, *backend,
                            {kRows, kColumns, DType::f64}, {&stage});
  const std::string error = test::error_of([&] { executor.run(); });
  EXPECT_NE(error.find("action 0F1"), std::string::npos) << error;
}

TEST(PipelineExecutor, RefusesAStageWithoutTheFunctionsThatItsScheduleNeeds) {
  class Plain final : public Stage {
   public:
    void forward(Visit, Tensor, Tensor) override {}
    void backward_input(Visit, Tensor, Tensor) override {}
    void backward_weight(Visit) override {}
  };
  const auto backend = cpu();
  const auto self = make_self_communicator();
  Plain stage;
  PipelineExecutor executor(test::complete_schedule({ScheduleKind::gpipe, 1, 1, 1}), *self,
                            *backend, {kRows, kColumns, DType::f64}, {&stage});
  const std::string error = test::error_of([&] { executor.run(); });
  EXPECT_NE(error.find("cannot gather its weights"), std::string::npos) << error;
}

}  // namespace
}  // namespace convoy
