// Run by mpirun: every rank runs every expectation, and any failing rank fails the test.
#include "parallel/mpi.h"

#include <chrono>
#include <thread>

#include "parallel/instrumented_communicator.h"
#include "parallel/mesh.h"
#include "tests/parallel/communicator_suite.h"

namespace {
const convoy::MpiEnvironment* environment = nullptr;
convoy::Communicator* world = nullptr;
}  // namespace

TEST(MpiCommunicator, DoesEverythingACommunicatorMust) {
  ASSERT_GT(world->size(), 1) << "start this program with mpirun";
  convoy::test::expect_everything(*world);
}

// The limit of one call, lowered so far that everything takes several pieces.
TEST(MpiCommunicator, SendsWhatIsTooLongForOneCallInPieces) {
  for (const std::int64_t largest : {1, 2, 3}) {
    convoy::test::expect_everything(*environment->world(largest));
  }
}

TEST(MpiCommunicator, CountsAndWatchesItsOperations) {
  convoy::CommunicationLog log;
  convoy::RankActivity activity(world->rank());
  const auto counted = convoy::instrument(environment->world(), "world", log, &activity);
  convoy::test::expect_everything(*counted);
  EXPECT_GT(log.count("world", convoy::Collective::all_reduce).operations, 0);
  const convoy::Mesh mesh(*counted, {.pp = world->size()});
  mesh.pp().barrier();
  EXPECT_EQ(log.total("pp").operations, 1);
}

// A long reduction takes several rounds of messages, which MPI moves only inside its calls.
TEST(MpiCommunicator, ProgressMovesOperationsAlong) {
  std::vector<double> values(std::size_t{1} << 20, 1.0);
  convoy::Work work = world->all_reduce(convoy::test::view(values), convoy::Reduction::sum);
  for (int i = 0; i < 1000; ++i) {
    world->progress();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_TRUE(work.test());
  EXPECT_EQ(values.front(), world->size());
  EXPECT_EQ(values.back(), world->size());
}

TEST(MpiCommunicator, SendsBf16AndRefusesToReduceIt) {
  convoy::BF16 value(world->rank() == 0 ? 1.5F : 0.0F);
  const convoy::Tensor tensor(&value, convoy::DType::bf16, convoy::DeviceKind::cpu, {1});
  world->broadcast(tensor, 0).wait();
  EXPECT_EQ(static_cast<float>(value), 1.5F);
  EXPECT_THROW(auto work = world->all_reduce(tensor, convoy::Reduction::sum), convoy::Error);
  std::vector<convoy::BF16> parts(static_cast<std::size_t>(world->size()));
  const convoy::Tensor all(parts.data(), convoy::DType::bf16, convoy::DeviceKind::cpu,
                           {world->size()});
  EXPECT_THROW(auto work = world->reduce_scatter(tensor, all), convoy::Error);
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
  environment = &mpi;
  world = communicator.get();
  return RUN_ALL_TESTS();
}
