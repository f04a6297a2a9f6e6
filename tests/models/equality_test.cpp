#include "core/null_backend.h"
#include "tests/models/model_harness.h"

namespace convoy::test {
namespace {

constexpr FilterKind kKinds[] = {FilterKind::none, FilterKind::fixed, FilterKind::headwise,
                                 FilterKind::lowrank};

TEST(Equality, RecomputeChangesNoBit) {
  for (const FilterKind kind : kKinds) {
    for (const DType dtype : {DType::f64, DType::f32}) {
      ModelHarness plain(tiny_model(kind), 2, dtype);
      const double loss = plain.gradients();
      for (const std::int64_t blocks : {1, 2}) {
        ModelHarness recomputed(tiny_model(kind), 2, dtype, blocks);
        EXPECT_EQ(recomputed.gradients(), loss);
        EXPECT_EQ(recomputed.flat_gradients(), plain.flat_gradients());
      }
    }
  }
}

// The rows of one sequence as a batch of its own.
BatchView sequence(const BatchView& batch, std::int64_t index) {
  const auto part = [&](const Tensor& t) {
    return t.reshape({t.size(), 1})
        .row_range(index * batch.length, batch.length)
        .reshape({batch.length});
  };
  return {1,
          batch.length,
          part(batch.tokens),
          part(batch.targets),
          part(batch.positions),
          part(batch.document_start),
          part(batch.reach)};
}

TEST(Equality, TwoMicroBatchesAddUpToOne) {
  for (const FilterKind kind : kKinds) {
    ModelHarness h(tiny_model(kind));
    h.gradients();
    const auto together = h.flat_gradients();
    double magnitude = 0;
    for (const double g : together) magnitude = std::max(magnitude, std::abs(g));
    h.store().zero_gradients();
    h.train(sequence(h.batch(), 0));
    h.train(sequence(h.batch(), 1));
    h.store().add_second_gradients();
    const auto apart = h.flat_gradients();
    // Sums over 26 rows in another order, of terms no larger than the largest gradient's sums.
    const double bound = 26 * 64 * unit_roundoff(DType::f64) * (1 + magnitude);
    for (std::size_t i = 0; i < together.size(); ++i) ASSERT_NEAR(together[i], apart[i], bound);
  }
}

TEST(Equality, F32StaysNearF64) {
  for (const FilterKind kind : kKinds) {
    ModelHarness wide(tiny_model(kind), 2, DType::f64), narrow(tiny_model(kind), 2, DType::f32);
    const double expected = wide.gradients(), measured = narrow.gradients();
    // Two blocks of about ten operations over at most 24 channels and 13 keys, then 21 losses.
    const double chain = 2 * 10 * 24 * unit_roundoff(DType::f32);
    EXPECT_NEAR(measured, expected, chain * expected);
    const auto a = wide.flat_gradients(), b = narrow.flat_gradients();
    double norm = 0, error = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      norm += a[i] * a[i];
      error += (a[i] - b[i]) * (a[i] - b[i]);
    }
    EXPECT_LT(std::sqrt(error), 2 * chain * std::sqrt(norm));
  }
}

TEST(Memory, TheMeasuredArenaIsExactlyWhatTrainingTakes) {
  for (const FilterKind kind : kKinds) {
    for (const std::int64_t recompute : {0, 1}) {
      const ModelConfig config = tiny_model(kind);
      NullBackend nothing;
      ParameterStore unused;
      const Transformer shape(unused, config, recompute);
      unused.allocate(nothing, DType::f64);
      ModelHarness h(config, 2, DType::f64, recompute);
      Arena measuring = Arena::measuring(nothing, "measuring");
      const Tensor losses(&nothing, DType::f64, DeviceKind::cpu, {h.batch().rows()});
      shape.train({nothing, measuring, DType::f64}, h.batch(), losses, 1);

      const auto run = [&](std::size_t bytes) {
        const auto backend = make_cpu_backend(NumericsMode::fast);
        Arena arena(*backend, "exact", bytes);
        const OwnedTensor nats(*backend, DType::f64, {h.batch().rows()});
        h.model().train({*backend, arena, DType::f64}, h.batch(), nats.view(), 1);
      };
      EXPECT_NO_THROW(run(measuring.high_water()));
      EXPECT_THROW(run(measuring.high_water() - 1), Error);
    }
  }
}

TEST(Memory, RecomputeNeedsLess) {
  ModelConfig config = tiny_model(FilterKind::lowrank);
  config.n_layers = 6;
  const auto bytes = [&](std::int64_t recompute) {
    NullBackend nothing;
    ParameterStore store;
    const Transformer model(store, config, recompute);
    store.allocate(nothing, DType::f32);
    ModelHarness h(config);
    Arena arena = Arena::measuring(nothing, "measuring");
    const Tensor losses(&nothing, DType::f64, DeviceKind::cpu, {h.batch().rows()});
    model.train({nothing, arena, DType::f32}, h.batch(), losses, 1);
    return arena.high_water();
  };
  EXPECT_LT(bytes(6), bytes(3));
  EXPECT_LT(2 * bytes(6), bytes(0));
}

}  // namespace
}  // namespace convoy::test
