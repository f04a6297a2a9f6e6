// Run by mpirun: pipelines of as many ranks as there are, each rank checks its own stages.
#include "parallel/mpi.h"
#include "tests/parallel/scale_stage.h"
#include "tests/parallel/schedule_shapes.h"

namespace {
convoy::Communicator* world = nullptr;
}

TEST(PipelineExecutor, ComputesOnProcessesWhatOneRankComputes) {
  ASSERT_GT(world->size(), 1) << "start this program with mpirun";
  for (const int m : {1, 3, 8}) {
    for (const convoy::PipelineShape& shape : convoy::test::shapes_of(world->size(), m)) {
      SCOPED_TRACE(convoy::test::describe(shape));
      const auto reference = convoy::test::gradients_without_pipeline(shape.stages(), m);
      const auto own =
          convoy::test::run_rank(convoy::test::complete_schedule(shape), *world).gradients;
      const std::vector<int> stages = shape.stages_of(world->rank());
      for (std::size_t i = 0; i < stages.size(); ++i) {
        const double wanted = reference[stages[i]];
        EXPECT_NEAR(own[i], wanted, convoy::test::gradient_tolerance(wanted, shape.stages(), m));
      }
    }
  }
}

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const convoy::MpiEnvironment mpi;
  const auto communicator = mpi.world();
  world = communicator.get();
  return RUN_ALL_TESTS();
}
