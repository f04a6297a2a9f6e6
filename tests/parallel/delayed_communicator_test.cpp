#include "parallel/delayed_communicator.h"

#include <ctime>

#include "parallel/null_communicator.h"
#include "parallel/thread_communicator.h"
#include "tests/parallel/communicator_suite.h"

namespace convoy::test {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double cpu_seconds() {
  std::timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST(DelayedCommunicator, DoesEverythingACommunicatorMust) {
  for (const int ranks : {1, 2, 3}) {
    run_on_threads(ranks, [](Communicator& world) {
      Link link;
      link.latency_s = 1e-4;
      expect_everything(*delay(world, link));
    });
  }
}

// 8 kB at 200 kB a second are 40 ms; the second transfer waits for the first.
TEST(DelayedCommunicator, TransfersFollowEachOtherOnTheLink) {
  constexpr double kEach = 0.04;
  const auto peer = make_null_communicator(0, 2);
  Link link;
  link.bytes_per_second = 200e3;
  const auto c = delay(*peer, link);
  std::vector<double> values(1000);
  const auto start = Clock::now();
  Work first = c->all_reduce(view(values), Reduction::sum);
  Work second = c->all_reduce(view(values), Reduction::sum);
  EXPECT_LT(seconds_since(start), kEach) << "posting is not waiting";
  EXPECT_FALSE(second.test());
  EXPECT_EQ(second.travel()->start, first.travel()->end);
  first.wait();
  EXPECT_GE(seconds_since(start), kEach);
  EXPECT_FALSE(second.test());
  second.wait();
  EXPECT_GE(seconds_since(start), 2 * kEach);
  EXPECT_EQ(link.bytes(), 16000U);
  EXPECT_NEAR(link.seconds(), 2 * kEach, 1e-9);
}

TEST(DelayedCommunicator, WaitingCostsNoProcessorTime) {
  const auto peer = make_null_communicator(0, 2);
  Link link;
  link.latency_s = 0.2;
  const auto c = delay(*peer, link);
  std::vector<double> values(10);
  const double before = cpu_seconds();
  c->all_reduce(view(values), Reduction::sum).wait();
  EXPECT_LT(cpu_seconds() - before, 0.02);
}

TEST(DelayedCommunicator, WhatIsDoneMeanwhileIsNotWaitedForAgain) {
  const auto peer = make_null_communicator(0, 2);
  Link link;
  link.latency_s = 0.02;
  const auto c = delay(*peer, link);
  std::vector<double> values(10);
  Work work = c->all_reduce(view(values), Reduction::sum);
  const auto posted = Clock::now();
  while (seconds_since(posted) < 2 * link.latency_s) {
  }
  EXPECT_TRUE(work.test());
}

TEST(DelayedCommunicator, CanDelayOneKindOfOperationOnly) {
  const auto peer = make_null_communicator(0, 2);
  Link link;
  link.latency_s = 30;
  link.only = Collective::reduce_scatter;
  const auto c = delay(*peer, link);
  std::vector<double> values(10), half(5);
  EXPECT_TRUE(c->all_reduce(view(values), Reduction::sum).test());
  EXPECT_EQ(link.bytes(), 0U);
  link.only = Collective::all_reduce;
  EXPECT_TRUE(c->reduce_scatter(view(half), view(values)).test());
}

}  // namespace
}  // namespace convoy::test
