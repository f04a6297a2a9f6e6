// The FLOPs that the accounting gives a model are the multiply-adds that its forward pass does,
// each counted where it happens: exactly, for every filter, placement and kind of head.
#include "models/accounting.h"
#include "models/batch_rows.h"
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

// Keeps every `one_in`-th target, and names their rows where that is not all.
struct SparseLabels {
  LabelRows host;

  void keep_one_in(std::int64_t one_in, BatchView& batch) {
    if (one_in == 1) return;
    auto* targets = batch.targets.data<std::int32_t>();
    for (std::int64_t i = 0; i < batch.rows(); ++i) {
      if (i % one_in != 0) targets[i] = -1;
    }
    fill_labels(host, std::span(targets, static_cast<std::size_t>(batch.rows())));
    const auto view = [](std::vector<std::int32_t>& v) {
      return Tensor(v.data(), DType::i32, DeviceKind::cpu, {std::ssize(v)});
    };
    batch.labels = {view(host.rows), view(host.targets), view(host.place)};
  }
};

double forward_loss(Backend& backend, const ModelConfig& config, std::int64_t one_in = 1) {
  Arena arena(backend, "test", std::size_t{16} << 20);
  ParameterStore store;
  const Transformer model(store, config, 0);
  store.allocate(backend, DType::f64);
  redraw(store, 7);
  BatchView batch = stream_batch(arena, config);
  SparseLabels labels;
  labels.keep_one_in(one_in, batch);
  const OwnedTensor losses(backend, DType::f64, {batch.rows()});
  model.evaluate({backend, arena, DType::f64}, batch, losses.view());
  double sum = 0;
  for (std::int64_t i = 0; i < batch.rows(); ++i) sum += losses.view().data<double>()[i];
  return sum;
}

ForwardPass counted_forward(const ModelConfig& config, std::int64_t one_in = 1) {
  CountingBackend backend;
  const double loss = forward_loss(backend, config, one_in);
  return {loss, backend.counted()};
}

void expect_counted(const ModelConfig& config, std::int64_t one_in = 1) {
  SCOPED_TRACE(concat(config.label(), config.tie_embeddings ? ", tied" : ", untied", ", kv heads ",
                      config.kv_heads(), ", d_ff ", config.d_ff));
  const ForwardPass pass = counted_forward(config, one_in);
  const FlopParts parts = training_flops_per_token(config, 1 / static_cast<double>(one_in));
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

TEST_P(CountedKinds, TheHeadCountsLabelledRowsAlone) {
  ModelConfig model = model_with(GetParam(), kAllSites);
  model.seq_len = 16;  // of 32 rows a half, a quarter, a sixteenth
  for (const std::int64_t one_in : {2, 4, 16}) expect_counted(model, one_in);
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
