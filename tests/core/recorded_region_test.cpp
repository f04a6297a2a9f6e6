// When a region runs, when it is recorded and when it is replayed, and that a replay reads what is
// in the memory by then.
#include "core/recorded_region.h"

#include "tests/core/op_test_tools.h"
#include "tests/core/replaying_backend.h"

namespace convoy::test {
namespace {

constexpr int kPlain = RecordedRegion::kPlainRuns;

// y += x, which tells how often it was done, and how often the host went through it.
struct Adding {
  Backend& backend;
  OwnedTensor x{backend, DType::f64, {3}}, y{backend, DType::f64, {3}};
  int bodies = 0;

  explicit Adding(Backend& on) : backend(on) { backend.fill(x.view(), 1); }
  std::function<void()> body() {
    return [this] {
      ++bodies;
      backend.add(y.view(), y.view(), x.view());
    };
  }
  double sum() const { return y.view().data<double>()[2]; }
};

TEST(RecordedRegion, RunsEveryTimeWhereTheBackendDoesNotRecord) {
  const auto backend = make_cpu_backend(NumericsMode::fast);
  Adding work(*backend);
  RecordedRegion region(*backend, "nobody reads this");
  for (int i = 1; i <= kPlain + 3; ++i) {
    region.run({}, work.body());
    EXPECT_FALSE(region.replayed());
    EXPECT_EQ(work.bodies, i);
    EXPECT_EQ(work.sum(), i);
  }
  EXPECT_EQ(region.status(), "");
  EXPECT_THROW(backend->record(work.body()), Error);
}

TEST(RecordedRegion, RunsThenRecordsThenReplays) {
  ReplayingBackend backend;
  Adding work(backend);
  RecordedRegion region(backend);
  for (int i = 1; i <= kPlain + 4; ++i) {
    region.run({7}, work.body());
    EXPECT_EQ(work.sum(), i) << "each run does the work once, also the one that records it";
    EXPECT_EQ(region.replayed(), i > kPlain);
    EXPECT_EQ(work.bodies, std::min(i, kPlain + 1));
  }
  EXPECT_EQ(backend.recorded(), 1);
  EXPECT_EQ(region.status(), "1 operations");
}

TEST(RecordedRegion, AReplayReadsWhatIsInTheMemoryByThen) {
  ReplayingBackend backend;
  Adding work(backend);
  RecordedRegion region(backend);
  for (int i = 0; i < kPlain + 1; ++i) region.run({}, work.body());
  backend.fill(work.x.view(), 100);
  region.run({}, work.body());
  EXPECT_EQ(work.sum(), kPlain + 1 + 100);
}

TEST(RecordedRegion, IsNotRecordedWhereThereIsAReasonNotTo) {
  ReplayingBackend backend;
  Adding work(backend);
  RecordedRegion region(backend, "it is Sunday");
  for (int i = 0; i < kPlain + 2; ++i) region.run({}, work.body());
  EXPECT_EQ(work.bodies, kPlain + 2);
  EXPECT_EQ(backend.recorded(), 0);
  EXPECT_EQ(region.status(), "it is Sunday");
}

TEST(RecordedRegion, EachShapeHasARecordingAndTheFourUsedLastStay) {
  ReplayingBackend backend;
  Adding work(backend);
  RecordedRegion region(backend);
  const auto run = [&](std::int64_t shape) {
    region.run({shape}, work.body());
    return region.replayed();
  };
  for (std::int64_t shape = 0; shape < 4; ++shape) {
    for (int i = 0; i < kPlain; ++i) EXPECT_FALSE(run(shape));
    EXPECT_TRUE(run(shape));
  }
  EXPECT_EQ(backend.recorded(), 4);
  EXPECT_TRUE(run(0));   // now 1 is the one that was used longest ago
  EXPECT_FALSE(run(4));  // and leaves
  EXPECT_TRUE(run(0));
  EXPECT_TRUE(run(2));
  EXPECT_TRUE(run(3));
  EXPECT_EQ(backend.recorded(), 4);
  EXPECT_FALSE(run(1));
}

TEST(RecordedRegion, WhatMovedIsRecordedAgain) {
  ReplayingBackend backend;
  Adding work(backend);
  RecordedRegion region(backend);
  for (int i = 0; i < kPlain + 2; ++i) region.run({}, work.body());
  backend.move();
  region.run({}, work.body());
  EXPECT_EQ(backend.recorded(), 2);
  EXPECT_EQ(work.bodies, kPlain + 2);
  EXPECT_EQ(work.sum(), kPlain + 3);
}

TEST(RecordedRegion, WhatCannotBeRecordedRunsAndSaysWhyOnce) {
  ReplayingBackend backend;
  Adding work(backend);
  RecordedRegion region(backend);
  const auto body = [&] {
    work.body()();
    double host = 0;
    backend.copy(Tensor(&host, DType::f64, DeviceKind::cpu, {1}),
                 Tensor(work.y.view().data(), DType::f64, DeviceKind::cpu, {1}));
    EXPECT_EQ(host, work.sum());
  };
  for (int i = 1; i <= kPlain + 3; ++i) {
    region.run({}, body);
    EXPECT_FALSE(region.replayed());
    EXPECT_EQ(work.sum(), i) << "an attempt that fails has done nothing";
  }
  EXPECT_EQ(work.bodies, kPlain + 3 + 1) << "one attempt, which was given up";
  EXPECT_NE(region.status().find("values of the host are copied"), std::string::npos)
      << region.status();
}

TEST(RecordedRegion, AnErrorOfTheBodyIsThrownAsItIs) {
  ReplayingBackend backend;
  RecordedRegion region(backend);
  bool broken = false;
  const auto body = [&] {
    if (broken) throw Error("the body is broken");
  };
  for (int i = 0; i < kPlain; ++i) region.run({}, body);
  broken = true;
  EXPECT_THROW(region.run({}, body), Error);
}

// A number in memory gives the bits of the same number known to the host, and may change.
TEST(Scalar, InMemoryIsReadWhenTheOperationRuns) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    ReplayingBackend backend;
    Workbench bench(dtype);
    const Tensor logits = bench.random({5, 11}), targets = bench.indices({1, -1, 10, 0, 4});
    const OwnedTensor scale(backend, DType::f64, {1}), losses(backend, DType::f64, {5});
    const OwnedTensor statistics(backend, dtype, {5, 3}), found(backend, dtype, {5, 11});
    const auto body = [&] {
      backend.cross_entropy(losses.view(), statistics.view(), found.view(), targets,
                            Scalar(scale.view()));
    };
    backend.copy(found.view(), logits);
    const auto recording = backend.record(body);
    for (const double value : {0.1, 1.0 / 3}) {
      const Tensor expected = bench.output({5, 11});
      for (const Tensor& t : {found.view(), expected}) backend.copy(t, logits);
      *scale.view().data<double>() = value;
      recording->replay();
      backend.cross_entropy(losses.view(), statistics.view(), expected, targets, value);
      EXPECT_EQ(values(found.view()), values(expected)) << "scale " << value;
    }
  }
  double two[2] = {};
  EXPECT_THROW(Scalar(Tensor(two, DType::f64, DeviceKind::cpu, {2})), Error);
}

}  // namespace
}  // namespace convoy::test
