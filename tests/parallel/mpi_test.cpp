// Run by mpirun: every rank runs every expectation, and any failing rank fails the test.
#include "parallel/mpi.h"

#include "tests/parallel/communicator_suite.h"

namespace {
convoy::Communicator* world = nullptr;
}

TEST(MpiCommunicator, DoesEverythingACommunicatorMust) {
  ASSERT_GT(world->size(), 1) << "start this program with mpirun";
  convoy::test::expect_everything(*world);
}

TEST(MpiCommunicator, RefusesWhatCannotBeSent) {
  std::vector<double> values(6);
  const convoy::Tensor strided = convoy::test::view(values, 3).column_range(0, 2);
  EXPECT_THROW(auto work = world->all_reduce(strided, convoy::Reduction::sum), convoy::Error);
}

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const convoy::MpiEnvironment mpi;
  const auto communicator = mpi.world();
  world = communicator.get();
  return RUN_ALL_TESTS();
}
