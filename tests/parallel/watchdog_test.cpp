#include "parallel/watchdog.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <fstream>

#include "core/error.h"
#include "parallel/instrumented_communicator.h"
#include "parallel/thread_communicator.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

class WatchdogTest : public testing::Test {
 protected:
  WatchdogTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    options_ = {.directory = fs::path(testing::TempDir()) / concat("positions_", test->name()),
                .deadline_s = 0.4,
                .grace_s = 0};
    fs::remove_all(options_.directory);
  }
  ~WatchdogTest() override { fs::remove_all(options_.directory); }

  // Runs `body` on threads that one watchdog watches; the report, or "" where there was no hang.
  std::string report_of(int ranks, int world_size,
                        const std::function<void(Communicator&, RankActivity&)>& body) {
    std::string report;
    {
      Watchdog watchdog(
          options_, world_size, [&](const std::string& text) { report = text; },
          [this] { ++ends_; });
      run_on_threads(ranks, [&](Communicator& world) {
        CommunicationLog log;
        RankActivity& activity = watchdog.watch(world.rank());
        body(*instrument(world.split(0), "world", log, &activity), activity);
      });
    }
    return report;
  }
  void wait_for_the_end() const {
    while (ends_ == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }

  WatchdogOptions options_;
  std::atomic<int> ends_ = 0;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(WatchdogTest, NamesTheRankThatIsBehindAndEndsTheRun) {
  const auto report = report_of(3, 3, [&](Communicator& c, RankActivity&) {
    const Doing doing(concat("step ", c.rank()));
    c.barrier();
    if (c.rank() == 1) wait_for_the_end();
    c.barrier();
  });
  EXPECT_EQ(ends_, 1);
  EXPECT_TRUE(contains(report, " in barrier 1 of world between ranks 0, 1, 2;")) << report;
  EXPECT_TRUE(contains(report, "while: step 0") || contains(report, "while: step 2")) << report;
  EXPECT_TRUE(contains(report, "rank 1: has posted 1 operations of world, computing")) << report;
  EXPECT_TRUE(contains(report, "suspect: rank 1 (behind, and in no operation)")) << report;
}

TEST_F(WatchdogTest, NamesTheSilentRankFirst) {
  // Rank 2 of the world left a position long ago and is in no group of the waiting rank.
  const auto report = report_of(2, 3, [&](Communicator& c, RankActivity&) {
    if (c.rank() == 1) {
      std::ofstream(options_.directory / "rank_2") << "time 1e9\nposted 7 dp\ndoing computing\n";
      wait_for_the_end();
    }
    c.barrier();
  });
  EXPECT_TRUE(contains(report, "rank 2: has posted 0 operations of world, computing; last seen"))
      << report;
  EXPECT_TRUE(contains(report, "suspect: rank 2 (stopped, killed or cut off)")) << report;
}

TEST_F(WatchdogTest, NamesARankThatLeftNoPosition) {
  const auto report = report_of(2, 3, [&](Communicator& c, RankActivity&) {
    if (c.rank() == 1) wait_for_the_end();
    c.barrier();
  });
  EXPECT_TRUE(contains(report, "rank 2: has left no position")) << report;
  EXPECT_TRUE(contains(report, "suspect: rank 2")) << report;
}

TEST_F(WatchdogTest, LetsAWaitShorterThanTheDeadlinePassAndCleansUp) {
  const auto report = report_of(2, 2, [&](Communicator& c, RankActivity&) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      if (c.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(120));
      c.barrier();
    }
  });
  EXPECT_EQ(report, "");
  EXPECT_EQ(ends_, 0);
  EXPECT_FALSE(fs::exists(options_.directory));
}

TEST_F(WatchdogTest, RefusesADeadlineThatIsNone) {
  options_.deadline_s = 0;
  EXPECT_THROW(Watchdog(options_, 1, {}, {}), Error);
}

}  // namespace
}  // namespace convoy
