#include "parallel/thread_communicator.h"

#include <chrono>
#include <thread>

#include "tests/parallel/communicator_suite.h"

namespace convoy::test {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The message of what run_on_threads throws.
std::string failure_of(int ranks, const std::function<void(Communicator&)>& body,
                       const ThreadOptions& options = {}) {
  try {
    run_on_threads(ranks, body, options);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

TEST(ThreadCommunicator, DoesEverythingACommunicatorMust) {
  for (const int ranks : {1, 2, 3, 4, 7}) run_on_threads(ranks, expect_everything);
}

TEST(ThreadCommunicator, DoesSoWhenEachTransferIsDelayed) {
  run_on_threads(3, expect_everything, {.latency_s = 1e-4, .bytes_per_second = 1e6});
}

TEST(ThreadCommunicator, SplitsNestAndKeepTheOrderOfTheRanks) {
  run_on_threads(8, [](Communicator& c) {
    const auto half = c.split(c.rank() / 4);
    const auto quarter = half->split(half->rank() % 2);
    EXPECT_EQ(quarter->size(), 2);
    std::vector<double> all(2), mine = {double(c.rank())};
    quarter->all_gather(view(all), view(mine)).wait();
    const int first = c.rank() / 4 * 4 + c.rank() % 2;
    EXPECT_EQ(all, (std::vector<double>{double(first), double(first + 2)}));
  });
}

// (1e8 + 1) - 1e8 loses the 1 in f32 where it is added first.
TEST(ThreadCommunicator, AddsInTheOrderOfTheRanks) {
  run_on_threads(3, [](Communicator& c) {
    const float terms[] = {1e8F, 1.0F, -1e8F};
    float in_order = 0;
    for (const float term : terms) in_order += term;
    for (int repeat = 0; repeat < 50; ++repeat) {
      if (repeat % 3 == c.rank()) std::this_thread::yield();
      float sum = terms[c.rank()];
      const Tensor values(&sum, DType::f32, DeviceKind::cpu, {1});
      c.all_reduce(values, Reduction::sum).wait();
      ASSERT_EQ(sum, in_order);
    }
  });
}

TEST(ThreadCommunicator, ReducesIntegers) {
  run_on_threads(3, [](Communicator& c) {
    std::int32_t values[] = {c.rank(), 1 << 20};
    const Tensor tensor(values, DType::i32, DeviceKind::cpu, {2});
    c.all_reduce(tensor, Reduction::sum).wait();
    EXPECT_EQ(values[0], 3);
    EXPECT_EQ(values[1], 3 << 20);
  });
}

TEST(ThreadCommunicator, WorkIsIncompleteUntilEveryRankHasCome) {
  run_on_threads(2, [](Communicator& c) {
    std::vector<double> value = {1}, word = {0};
    const auto kind = c.rank() == 0 ? Transfer::Kind::send : Transfer::Kind::receive;
    const Transfer go_ahead[] = {{kind, view(word), 1 - c.rank()}};
    if (c.rank() == 1) c.exchange(go_ahead).wait();
    Work work = c.all_reduce(view(value), Reduction::sum);
    if (c.rank() == 0) {
      EXPECT_FALSE(work.test());
      c.exchange(go_ahead).wait();
    }
    while (!work.test()) std::this_thread::yield();
    EXPECT_EQ(value[0], 2);
  });
}

TEST(ThreadCommunicator, ResultsAppearOnlyWhenWaitedFor) {
  run_on_threads(2, [](Communicator& c) {
    std::vector<double> all(2, -1), mine = {double(c.rank())};
    Work work = c.all_gather(view(all), view(mine));
    c.barrier();
    EXPECT_EQ(all, (std::vector<double>{-1, -1}));
    EXPECT_TRUE(work.test());
    EXPECT_EQ(all, (std::vector<double>{0, 1}));
  });
}

TEST(ThreadCommunicator, DelaysEachTransferByItsLatencyAndBytes) {
  constexpr double kLatency = 0.02, kRate = 1e4;  // 100 f64 take 0.08 s
  run_on_threads(2,
                 [](Communicator& c) {
                   std::vector<double> out(100), in(100);
                   const int peer = 1 - c.rank();
                   const Transfer swap[] = {{Transfer::Kind::send, view(out), peer},
                                            {Transfer::Kind::receive, view(in), peer}};
                   const auto start = Clock::now();
                   Work reduction = c.all_reduce(view(in), Reduction::sum);
                   EXPECT_FALSE(reduction.test());
                   reduction.wait();
                   EXPECT_GE(seconds_since(start), kLatency + 800 / kRate);
                   const auto middle = Clock::now();
                   Work messages = c.exchange(swap);
                   EXPECT_FALSE(messages.test());
                   messages.wait();
                   EXPECT_GE(seconds_since(middle), kLatency + 800 / kRate);
                   const auto kind = c.rank() == 0 ? Transfer::Kind::send : Transfer::Kind::receive;
                   const Transfer one_way[] = {{kind, view(c.rank() == 0 ? out : in), peer}};
                   c.barrier();
                   const auto end = Clock::now();
                   c.exchange(one_way).wait();
                   EXPECT_GE(seconds_since(end), kLatency + 800 / kRate);
                 },
                 {.latency_s = kLatency, .bytes_per_second = kRate});
}

TEST(ThreadCommunicator, ReceivesMayBeWaitedForInAnyOrder) {
  run_on_threads(2, [](Communicator& c) {
    std::vector<double> first = {1}, second = {2};
    const auto kind = c.rank() == 0 ? Transfer::Kind::send : Transfer::Kind::receive;
    if (c.rank() == 1) first[0] = second[0] = -1;
    const Transfer one[] = {{kind, view(first), 1 - c.rank()}};
    const Transfer two[] = {{kind, view(second), 1 - c.rank()}};
    Work earlier = c.exchange(one), later = c.exchange(two);
    later.wait();
    EXPECT_EQ(second[0], 2);
    earlier.wait();
    EXPECT_EQ(first[0], 1);
  });
}

TEST(ThreadCommunicator, AFailingRankIsNamedToTheOthersAndItsErrorComesBack) {
  std::string seen[4];
  const auto failure = failure_of(4, [&](Communicator& c) {
    const auto pair = c.split(c.rank() / 2);
    if (c.rank() == 2) throw Error("out of ideas");
    try {
      std::vector<double> value = {1};
      if (c.rank() == 3) pair->barrier();                     // in a group with the failed rank
      if (c.rank() == 1) c.broadcast(view(value), 2).wait();  // in the world
      if (c.rank() == 0) {                                    // for a message of the failed rank
        const Transfer receive[] = {{Transfer::Kind::receive, view(value), 2}};
        c.exchange(receive).wait();
      }
    } catch (const Error& error) {
      seen[c.rank()] = error.what();
      throw;
    }
  });
  EXPECT_EQ(failure, "out of ideas");
  for (const int rank : {0, 1, 3}) EXPECT_EQ(seen[rank], "rank 2 failed: out of ideas") << rank;
}

TEST(ThreadCommunicator, AnyExceptionComesBackAsItWas) {
  EXPECT_THROW(run_on_threads(2,
                              [](Communicator& c) {
                                if (c.rank() == 1) throw std::out_of_range("far");
                                c.barrier();
                              }),
               std::out_of_range);
}

TEST(ThreadCommunicator, ARankThatReturnsEarlyIsAnErrorForWhoWaitsForIt) {
  EXPECT_NE(failure_of(2,
                       [](Communicator& c) {
                         if (c.rank() == 0) c.barrier();
                       })
                .find("rank 1 has returned without barrier"),
            std::string::npos);
  EXPECT_NE(failure_of(2,
                       [](Communicator& c) {
                         std::vector<double> value = {1};
                         const Transfer receive[] = {{Transfer::Kind::receive, view(value), 1}};
                         if (c.rank() == 0) c.exchange(receive).wait();
                       })
                .find("rank 1 has returned without sending message 0 to rank 0"),
            std::string::npos);
}

TEST(ThreadCommunicator, RanksThatCallDifferentOperationsAreTold) {
  const auto failure = failure_of(2, [](Communicator& c) {
    std::vector<double> value = {1};
    if (c.rank() == 0) c.all_reduce(view(value), Reduction::sum).wait();
    if (c.rank() == 1) c.all_reduce(view(value), Reduction::maximum).wait();
  });
  EXPECT_NE(failure.find("all_reduce (sum) f64 x 1"), std::string::npos) << failure;
  EXPECT_NE(failure.find("all_reduce (maximum) f64 x 1"), std::string::npos) << failure;
}

TEST(ThreadCommunicator, ADeadlockEndsAtTheDeadlineAndNamesWhoIsMissing) {
  const auto failure =
      failure_of(2,
                 [](Communicator& c) {
                   const auto other = c.split(0);
                   (c.rank() == 0 ? c : *other).barrier();  // each waits for the other, elsewhere
                 },
                 {.deadline_s = 0.1});
  EXPECT_NE(failure.find("waited 0.1 s for rank"), std::string::npos) << failure;
}

TEST(ThreadCommunicator, ATensorChangedInFlightIsAnError) {
  const auto failure = failure_of(2, [](Communicator& c) {
    std::vector<double> value = {1};
    Work work = c.all_reduce(view(value), Reduction::sum);
    if (c.rank() == 1) value[0] = 2;
    work.wait();
  });
  EXPECT_NE(failure.find("f64[1] was changed during all_reduce"), std::string::npos) << failure;
}

TEST(ThreadCommunicator, RefusesWhatCannotBeReduced) {
  const auto self_is_enough = [](Communicator& c) {
    BF16 value(1.0F);
    const Tensor tensor(&value, DType::bf16, DeviceKind::cpu, {1});
    EXPECT_THROW(auto work = c.all_reduce(tensor, Reduction::sum), Error);
    c.broadcast(tensor, 0).wait();
  };
  run_on_threads(2, self_is_enough);
}

TEST(ThreadCommunicator, ErrorsNameTheRankAndWhatItWasDoing) {
  const auto failure = failure_of(3, [](Communicator& c) {
    const Doing doing(concat("step ", c.rank()));
    c.barrier();
    CHECK(c.rank() != 1, "no");
    c.barrier();
  });
  EXPECT_NE(failure.find("[rank 1] [while: step 1]"), std::string::npos) << failure;
}

}  // namespace
}  // namespace convoy::test
