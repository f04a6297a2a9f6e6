#include "parallel/instrumented_communicator.h"

#include <chrono>
#include <thread>

#include "parallel/mesh.h"
#include "parallel/thread_communicator.h"
#include "tests/parallel/communicator_suite.h"

namespace convoy::test {
namespace {

// A communicator of the run's threads that somebody owns: instrument() takes an owner.
std::unique_ptr<Communicator> owned(Communicator& world) { return world.split(0); }

TEST(InstrumentedCommunicator, DoesEverythingACommunicatorMust) {
  for (const int ranks : {1, 2, 3, 4}) {
    run_on_threads(ranks, [](Communicator& world) {
      CommunicationLog log;
      RankActivity activity(world.rank());
      expect_everything(*instrument(owned(world), "world", log));
      expect_everything(*instrument(owned(world), "watched", log, &activity));
    });
  }
}

TEST(InstrumentedCommunicator, CountsTheBytesThatThisRankGives) {
  run_on_threads(3, [](Communicator& world) {
    CommunicationLog log;
    const auto c = instrument(owned(world), "tp", log);
    std::vector<double> three(3), nine(9);
    std::vector<std::int64_t> rows = {1, 1, 1};
    c->all_reduce(view(nine), Reduction::sum).wait();
    c->all_reduce(view(three), Reduction::maximum).wait();
    c->all_gather(view(nine), view(three)).wait();
    c->reduce_scatter(view(three), view(nine)).wait();
    std::vector<double> other(9);
    c->all_to_all(view(other, 3), rows, view(nine, 3), rows).wait();
    c->broadcast(view(nine), 1).wait();
    const int next = (c->rank() + 1) % 3, before = (c->rank() + 2) % 3;
    std::vector<double> from_before(3);
    const Transfer ring[] = {{Transfer::Kind::send, view(three), next},
                             {Transfer::Kind::receive, view(from_before), before}};
    c->exchange(ring).wait();
    c->barrier();
    const auto expect = [&](Collective collective, std::int64_t operations, std::int64_t bytes) {
      const auto count = log.count("tp", collective);
      EXPECT_EQ(count.operations, operations) << name_of(collective);
      EXPECT_EQ(count.bytes, bytes) << name_of(collective);
    };
    expect(Collective::all_reduce, 2, 72 + 24);
    expect(Collective::all_gather, 1, 24);
    expect(Collective::reduce_scatter, 1, 72);
    expect(Collective::all_to_all, 1, 72);
    expect(Collective::broadcast, 1, c->rank() == 1 ? 72 : 0);
    expect(Collective::exchange, 1, 24);
    expect(Collective::barrier, 1, 0);
    expect(Collective::split, 0, 0);
    EXPECT_EQ(log.rows().size(), 7U);
    EXPECT_EQ(log.total().operations, 8);
    log.reset();
    EXPECT_EQ(log.total("tp").bytes, 0);
    EXPECT_TRUE(log.rows().empty());
  });
}

TEST(InstrumentedCommunicator, MeasuresOnlyTheTimeSpentWaiting) {
  constexpr double kDelay = 0.1;
  const std::chrono::duration<double> work_time(2 * kDelay);
  run_on_threads(2,
                 [&](Communicator& world) {
                   CommunicationLog log;
                   const auto c = instrument(owned(world), "dp", log);
                   std::vector<double> value = {1};
                   Work hidden = c->all_reduce(view(value), Reduction::sum);
                   std::this_thread::sleep_for(work_time);
                   c->barrier();  // both ranks have slept; waits its own delay
                   hidden.wait();
                   EXPECT_EQ(log.count("dp", Collective::all_reduce).wait_s, 0);
                   c->all_reduce(view(value), Reduction::sum).wait();
                   EXPECT_GE(log.count("dp", Collective::all_reduce).wait_s, kDelay);
                 },
                 {.latency_s = kDelay});
}

TEST(InstrumentedCommunicator, AMeshCountsEachOfItsGroupsByName) {
  run_on_threads(8, [](Communicator& world) {
    CommunicationLog log;
    RankActivity activity(world.rank());
    const auto whole = instrument(owned(world), "start", log, &activity);
    const Mesh mesh(*whole, {.dp = 2, .tp = 4});
    std::vector<double> value = {1};
    mesh.tp().all_reduce(view(value), Reduction::sum).wait();
    mesh.gradient().all_reduce(view(value), Reduction::sum).wait();
    mesh.cp().all_reduce(view(value), Reduction::sum).wait();  // alone: nothing to communicate
    EXPECT_EQ(value[0], 8);
    EXPECT_EQ(log.total("tp").operations, 1);
    EXPECT_EQ(log.total("gradient").operations, 1);
    EXPECT_EQ(log.total("dp").operations, 0);
    EXPECT_EQ(log.total("cp").operations, 0);
    EXPECT_EQ(log.count("start", Collective::split).operations, 5);  // all but pp, cp and ep
  });
}

TEST(RankActivity, KnowsWhatItsRankWaitsFor) {
  RankActivity activity(3);
  EXPECT_EQ(activity.post("tp"), 0U);
  EXPECT_EQ(activity.post("tp"), 1U);
  EXPECT_EQ(activity.post("dp"), 0U);
  EXPECT_FALSE(activity.position().wait.has_value());
  const Doing doing("step 4");
  activity.begin_wait(Collective::all_gather, 1, "tp", {2, 3});
  const auto position = activity.position();
  EXPECT_EQ(position.rank, 3);
  EXPECT_EQ(position.posted.at("tp"), 2U);
  EXPECT_EQ(position.breadcrumb, "step 4");
  EXPECT_EQ(position.wait->peers, (std::vector<int>{2, 3}));
  activity.end_wait();
  EXPECT_FALSE(activity.position().wait.has_value());
}

}  // namespace
}  // namespace convoy::test
