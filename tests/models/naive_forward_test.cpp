// The model's losses, row by row, against the same model written out in plain loops; bounds come
// from the roundings of every number on the way.
#include "tests/models/model_harness.h"
#include "tests/models/naive_transformer.h"

namespace convoy::test {
namespace {

template <DType D>
void expect_naive_losses(const ModelConfig& config) {
  SCOPED_TRACE(concat(config.label(), " in ", name_of(D)));
  ModelHarness h(config, 2, D);
  h.loss();
  const auto expected = NaiveTransformer<D>(h.store(), config).losses(h.batch());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& [loss, error] = expected[i];
    ASSERT_NEAR(h.losses().data<double>()[i], loss, error) << "row " << i;
    // Nats are near ln V, and what a wrong formula changes shows in their second digit.
    ASSERT_LT(error, 1.0 / 100) << "row " << i << ": a bound too wide to say anything";
  }
}

class EveryFilter : public testing::TestWithParam<FilterKind> {};

TEST_P(EveryFilter, GivesTheLossesOfANaiveForwardPass) {
  expect_naive_losses<DType::f64>(tiny_model(GetParam()));
}

TEST_P(EveryFilter, GivesThemWithSharedKeysAndQkNorm) {
  ModelConfig m = tiny_model(GetParam());
  m.n_kv_heads = 2;
  m.qk_norm = true;
  m.conv.on = default_conv_sites();
  expect_naive_losses<DType::f64>(m);
}

TEST_P(EveryFilter, GivesThemUntiedWithoutResidualAndWithTapsBeyondDocuments) {
  ModelConfig m = tiny_model(GetParam());
  m.tie_embeddings = false;
  m.conv.residual = false;
  m.conv.width = 8;
  m.conv.on = {ConvSite::v, ConvSite::o, ConvSite::down};
  expect_naive_losses<DType::f64>(m);
}

// Bounds of magnitudes grow with every layer, so f32 is held to them over one small layer.
TEST_P(EveryFilter, GivesThemWithOneLayerAndOneHeadInF32Too) {
  ModelConfig m = tiny_model(GetParam());
  m.n_layers = 1;
  m.n_heads = 1;
  m.d_model = 6;
  m.d_ff = 9;
  m.vocab = 5;
  expect_naive_losses<DType::f64>(m);
  expect_naive_losses<DType::f32>(m);
}

INSTANTIATE_TEST_SUITE_P(Filters, EveryFilter,
                         testing::Values(FilterKind::none, FilterKind::fixed, FilterKind::headwise,
                                         FilterKind::lowrank),
                         filter_name);

}  // namespace
}  // namespace convoy::test
