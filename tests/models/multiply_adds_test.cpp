// The FLOPs that the accounting gives a model are the multiply-adds that its forward pass does,
// each counted where it happens: exactly, for every filter, placement and kind of head.
#include "models/accounting.h"
#include "tests/models/counting_backend.h"
#include "tests/models/model_harness.h"

namespace convoy::test {
namespace {

constexpr std::int64_t kSequences = 2;
constexpr double kTrainingFlopsOfAMultiplyAdd = 6;  // 2, and training is 3 x forward

struct ForwardPass {
  double loss = 0;
  CountingBackend::MultiplyAdds counted;
};

// Windows of one stream: every row counts and sees its whole past.
BatchView stream_batch(Arena& arena, const ModelConfig& model) {
  const std::int64_t rows = kSequences * model.seq_len;
  const RandomStream random(1, "tokens");
  const auto make = [&](auto value) {
    const Tensor t = arena.take(DType::i32, {rows});
    for (std::int64_t i = 0; i < rows; ++i) {
      t.data<std::int32_t>()[i] = static_cast<std::int32_t>(value(i));
    }
    return t;
  };
  const auto token = [&](std::int64_t i) {
    return random.bits(static_cast<std::uint64_t>(i))[0] % static_cast<std::uint32_t>(model.vocab);
  };
  const auto position = [&](std::int64_t i) { return i % model.seq_len; };
  BatchView batch{kSequences,
                  model.seq_len,
                  make(token),
                  make([&](std::int64_t i) { return token(i + rows); }),
                  make(position),
                  make([](std::int64_t) { return 0; }),
                  make([&](std::int64_t i) { return std::min<std::int64_t>(position(i), 7); })};
  batch.one_document = true;
  return batch;
}

double forward_loss(Backend& backend, const ModelConfig& config) {
  Arena arena(backend, "test", std::size_t{16} << 20);
  ParameterStore store;
  const Transformer model(store, config, 0);
  store.allocate(backend, DType::f64);
  redraw(store, 7);
  const BatchView batch = stream_batch(arena, config);
  const OwnedTensor losses(backend, DType::f64, {batch.rows()});
  model.evaluate({backend, arena, DType::f64}, batch, losses.view());
  double sum = 0;
  for (std::int64_t i = 0; i < batch.rows(); ++i) sum += losses.view().data<double>()[i];
  return sum;
}

ForwardPass counted_forward(const ModelConfig& config) {
  CountingBackend backend;
  const double loss = forward_loss(backend, config);
  return {loss, backend.counted()};
}

void expect_counted(const ModelConfig& config) {
  SCOPED_TRACE(concat(config.label(), config.tie_embeddings ? ", tied" : ", untied", ", kv heads ",
                      config.kv_heads(), ", d_ff ", config.d_ff));
  const ForwardPass pass = counted_forward(config);
  const FlopParts parts = training_flops_per_token(config);
  const auto tokens = static_cast<double>(kSequences * config.seq_len);
  const auto flops = [](std::int64_t multiply_adds) {
    return kTrainingFlopsOfAMultiplyAdd * static_cast<double>(multiply_adds);
  };
  EXPECT_EQ(flops(pass.counted.total()), parts.total() * tokens);
  EXPECT_EQ(flops(pass.counted.attention), parts.attention * tokens);
  // The generators' matmul is the conv's share of the matmuls.
  EXPECT_EQ(flops(pass.counted.matmul + pass.counted.conv),
            (parts.linear + parts.head + parts.conv) * tokens);
}

ModelConfig model_with(FilterKind kind, const std::vector<ConvSite>& on) {
  ModelConfig model = tiny_model(kind);
  model.conv.on = on;
  return model;
}

class CountedKinds : public testing::TestWithParam<FilterKind> {};

TEST_P(CountedKinds, EveryPlacementDoesTheAccountedMultiplyAdds) {
  std::vector<std::vector<ConvSite>> placements = {{ConvSite::q, ConvSite::k, ConvSite::v},
                                                   {ConvSite::k, ConvSite::o, ConvSite::down},
                                                   kAllSites};
  for (const ConvSite site : kAllSites) placements.push_back({site});
  for (const auto& on : placements) {
    for (const bool tied : {true, false}) {
      for (const std::int64_t kv_heads : {0, 2, 1}) {
        ModelConfig model = model_with(GetParam(), on);
        model.tie_embeddings = tied;
        model.n_kv_heads = kv_heads;
        expect_counted(model);
      }
    }
  }
}

TEST_P(CountedKinds, OtherWidthsRanksAndNormsToo) {
  for (const int width : {1, 7}) {
    ModelConfig model = model_with(GetParam(), kAllSites);
    model.conv.width = width;
    model.conv.rank = 1;
    model.conv.head_size = 1;
    model.conv.residual = false;
    model.qk_norm = true;
    expect_counted(model);
  }
  ModelConfig no_mlp = model_with(GetParam(), {ConvSite::q, ConvSite::v});
  no_mlp.d_ff = 0;
  expect_counted(no_mlp);
}

// What is counted is what computes the loss: the same model on the CPU's own operations agrees to
// the roundings of that many multiply-adds of numbers near 1.
TEST_P(CountedKinds, TheCountedPassComputesTheLoss) {
  const ModelConfig model = model_with(GetParam(), kAllSites);
  const ForwardPass pass = counted_forward(model);
  const auto backend = make_cpu_backend(NumericsMode::invariant);
  EXPECT_NEAR(pass.loss, forward_loss(*backend, model),
              unit_roundoff(DType::f64) * static_cast<double>(pass.counted.total()));
}

INSTANTIATE_TEST_SUITE_P(Filters, CountedKinds,
                         testing::Values(FilterKind::none, FilterKind::fixed, FilterKind::headwise,
                                         FilterKind::lowrank),
                         filter_name);

}  // namespace
}  // namespace convoy::test
