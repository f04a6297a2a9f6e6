#include "tests/models/model_harness.h"

namespace convoy::test {
namespace {

// Every parameter tensor: four elements, and a direction through all of them, against central
// differences. With h = 1e-5 differences carry h^2 |f'''| + u |f| / h, about 1e-10 for losses near
// 70; 2e-6 relative (1e-3 absolute floor) is far below what a missing or doubled term causes.
void expect_gradients(const ModelConfig& config, std::int64_t recompute_blocks = 0) {
  constexpr double kStep = 1e-5, kRelative = 2e-6, kFloor = 1e-3;
  SCOPED_TRACE(config.label());
  ModelHarness h(config, 2, DType::f64, recompute_blocks);
  h.gradients();
  const RandomStream random(3, "directions");
  std::uint64_t draw = 0;
  for (auto& p : h.store().all()) {
    double* x = p.value.data<double>();
    const std::vector<double> kept(x, x + p.size());
    const auto slope = [&](const std::vector<double>& direction) {
      const auto move = [&](double distance) {
        for (std::size_t i = 0; i < kept.size(); ++i) x[i] = kept[i] + distance * direction[i];
        return h.loss();
      };
      const double difference = move(kStep) - move(-kStep);
      std::copy(kept.begin(), kept.end(), x);
      return difference / (2 * kStep);
    };
    for (int probe = 0; probe < 5; ++probe) {
      std::vector<double> direction(kept.size(), 0.0);
      if (probe == 0) {
        for (auto& d : direction) d = random.normal(draw++);
      } else {
        direction[random.bits(draw++)[0] % kept.size()] = 1;
      }
      double expected = 0;
      for (std::size_t i = 0; i < kept.size(); ++i) {
        expected += direction[i] * p.gradient.data<double>()[i];
      }
      const double measured = slope(direction);
      ASSERT_NEAR(measured, expected, kRelative * (kFloor + std::abs(expected)))
          << p.name << ", probe " << probe;
    }
  }
}

class EveryKind : public testing::TestWithParam<FilterKind> {};

TEST_P(EveryKind, GradientsEqualCentralDifferences) { expect_gradients(tiny_model(GetParam())); }

TEST_P(EveryKind, WithGroupedQueriesAndQkNorm) {
  ModelConfig m = tiny_model(GetParam());
  m.n_kv_heads = 2;
  m.qk_norm = true;
  expect_gradients(m);
}

TEST_P(EveryKind, UntiedWideWithoutResidual) {
  ModelConfig m = tiny_model(GetParam());
  m.tie_embeddings = false;
  m.conv.residual = false;
  m.conv.width = 7;
  expect_gradients(m);
}

TEST_P(EveryKind, OnSomeLinearsOnly) {
  ModelConfig m = tiny_model(GetParam());
  m.conv.on = {ConvSite::k, ConvSite::up, ConvSite::o};
  m.conv.width = 3;
  expect_gradients(m);
}

TEST_P(EveryKind, WithoutAnMlp) {
  for (const std::int64_t recomputed : {0, 1}) {
    ModelConfig m = tiny_model(GetParam());
    m.d_ff = 0;
    m.conv.on = {ConvSite::q, ConvSite::k, ConvSite::v, ConvSite::o};
    expect_gradients(m, recomputed);
  }
}

TEST_P(EveryKind, WithRecomputedBlocks) { expect_gradients(tiny_model(GetParam()), 2); }

INSTANTIATE_TEST_SUITE_P(Filters, EveryKind,
                         testing::Values(FilterKind::none, FilterKind::fixed, FilterKind::headwise,
                                         FilterKind::lowrank),
                         filter_name);

}  // namespace
}  // namespace convoy::test
