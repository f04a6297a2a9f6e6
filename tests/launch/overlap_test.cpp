// Computation and communication run at the same time: measured, not believed. The clock decides, so
// these tests run alone (RUN_SERIAL). The rank that is timed has no peer that could be late: its
// link is as slow as calibrated, and the other end always ready.
#include <gtest/gtest.h>

#include <cstdio>

#include "core/cpu/cpu_backend.h"
#include "launch/bench_overlap.h"
#include "parallel/delayed_communicator.h"
#include "parallel/null_communicator.h"
#include "parallel/thread_communicator.h"

namespace convoy::test {
namespace {

class CoScheduled : public testing::TestWithParam<CoSchedule> {};

struct Measured {
  double on, off;  // share of the transfers that was hidden
  double saved;    // of a pass without overlap, in units of the transfers

  // Without overlap it may be less than 0: a sleeper wakes late, never early. What is hidden is
  // time that the pass does not take.
  bool hides() const { return on >= 0.7 && off <= 0.05 && saved >= 0.5; }
};

Measured measure(CoSchedule what, NumericsMode mode) {
  const auto pair = make_null_communicator(0, 2);
  const OverlapOptions options{.mode = mode};
  const auto on = measure_overlap(what, Overlap::yes, *pair, options);
  const auto off = measure_overlap(what, Overlap::no, *pair, options);
  std::printf(
      "%s: %.1f ms in flight for %.1f ms of computation; hidden %.1f %% on, %.1f %% off; "
      "pass %.1f ms on, %.1f ms off\n",
      std::string(name_of(what)).c_str(), 1e3 * on.transfer, 1e3 * on.cover, 100 * on.hidden(),
      100 * off.hidden(), 1e3 * on.pass, 1e3 * off.pass);
  return {on.hidden(), off.hidden(), (off.pass - on.pass) / on.transfer};
}

// Others may take the processor away while it is measured, which makes hiding look less, so there
// are several attempts; code that does not overlap hides nothing in any of them.
void expect_hidden(CoSchedule what, NumericsMode mode) {
  constexpr int kAttempts = 5;
  Measured measured{};
  for (int attempt = 0; attempt < kAttempts && !measured.hides(); ++attempt) {
    measured = measure(what, mode);
  }
  EXPECT_TRUE(measured.hides()) << "hidden: " << measured.on << " with overlap, " << measured.off
                                << " without; saved: " << measured.saved << " of the transfers";
}

TEST_P(CoScheduled, HidesMostOfItsCommunicationAndNoneWithoutOverlap) {
  expect_hidden(GetParam(), NumericsMode::fast);
}

TEST(CoScheduledTree, HidesMostOfItsCommunicationInInvariantMode) {
  expect_hidden(CoSchedule::gradient_buckets, NumericsMode::invariant);
}

// On two ranks that really talk, over a link that delays every transfer.
std::vector<std::vector<float>> results(CoSchedule what, Overlap overlap, NumericsMode mode) {
  std::vector<std::vector<float>> all(2);
  run_on_threads(2, [&](Communicator& pair) {
    Link link;
    link.latency_s = 2e-3;
    const auto delayed = delay(pair, link);
    const auto backend = make_cpu_backend(mode);
    const auto workload = make_overlap_workload(what, overlap, *delayed, *backend, mode);
    workload->prepare();
    workload->run();
    all[static_cast<std::size_t>(pair.rank())] = workload->result();
  });
  return all;
}

TEST_P(CoScheduled, OverlapChangesNoBit) {
  for (const NumericsMode mode : {NumericsMode::fast, NumericsMode::invariant}) {
    const auto on = results(GetParam(), Overlap::yes, mode);
    ASSERT_FALSE(on[0].empty());
    EXPECT_NE(on[0], std::vector<float>(on[0].size())) << "nothing was computed";
    EXPECT_EQ(on, results(GetParam(), Overlap::no, mode));
  }
}

INSTANTIATE_TEST_SUITE_P(All, CoScheduled, testing::ValuesIn(kCoSchedules),
                         [](const auto& instance) { return std::string(name_of(instance.param)); });

}  // namespace
}  // namespace convoy::test
