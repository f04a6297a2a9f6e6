#include <map>

#include "tests/models/model_harness.h"

namespace convoy::test {
namespace {

struct Initialised {
  std::unique_ptr<Backend> backend = make_cpu_backend(NumericsMode::fast);
  ParameterStore store;
  Transformer model;

  explicit Initialised(const ModelConfig& config, std::uint64_t seed = 1) : model(store, config) {
    store.allocate(*backend, DType::f64);
    store.initialize(seed);
  }
  const Parameter& find(const std::string& name) const {
    for (const auto& p : store.all()) {
      if (p.name == name) return p;
    }
    throw Error("no parameter " + name);
  }
  std::vector<double> values(const std::string& name) const {
    const Parameter& p = find(name);
    return {p.value.data<double>(), p.value.data<double>() + p.size()};
  }
};

ModelConfig wide(FilterKind kind) {
  ModelConfig m = tiny_model(kind);
  m.d_model = 96;
  m.d_ff = 96;
  m.vocab = 300;
  return m;
}

double deviation(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v * v;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

double largest(const std::vector<double>& values) {
  double top = 0;
  for (const double v : values) top = std::max(top, std::abs(v));
  return top;
}

TEST(Initialization, EachKindOfParameterFollowsItsRule) {
  const Initialised m(wide(FilterKind::lowrank));
  // The deviation of n normals is known to 1 / sqrt(2 n); five of these.
  const auto near_std = [&](const std::string& name, double expected) {
    const auto v = m.values(name);
    EXPECT_NEAR(deviation(v), expected, 5 * expected / std::sqrt(2 * static_cast<double>(v.size())))
        << name;
  };
  near_std("embedding.weight", 0.02);
  near_std("blocks.1.attention.q.weight", 0.02);
  near_std("blocks.0.mlp.down.weight", 0.02);
  EXPECT_EQ(m.values("blocks.0.mlp_norm.weight"), std::vector<double>(96, 1.0));
  EXPECT_EQ(largest(m.values("blocks.0.attention.o.conv.U")), 0);
  const double bound = 1 / std::sqrt(96.0);
  near_std("blocks.0.attention.q.conv.A", bound / std::sqrt(3));
  EXPECT_LT(largest(m.values("blocks.0.attention.q.conv.A")), bound);
  EXPECT_LT(largest(m.values("blocks.0.mlp.gate.conv.s")), 0.5);
  EXPECT_GT(largest(m.values("blocks.0.mlp.gate.conv.s")), 0.45);
  EXPECT_EQ(largest(Initialised(wide(FilterKind::headwise)).values("blocks.0.attention.v.conv.G")),
            0);
}

TEST(Initialization, NamesAndShapesAreTheDocumentedOnes) {
  const Initialised low(wide(FilterKind::lowrank)), head(wide(FilterKind::headwise));
  using Shape = std::vector<std::int64_t>;
  EXPECT_EQ(low.find("blocks.1.attention.q.conv.A").shape, (Shape{5, 96}));
  EXPECT_EQ(low.find("blocks.1.attention.q.conv.U").shape, (Shape{5, 4, 96}));
  EXPECT_EQ(low.find("blocks.1.mlp.up.conv.s").shape, (Shape{4, 96}));
  EXPECT_EQ(low.find("blocks.0.mlp.up.weight").shape, (Shape{96, 96}));
  EXPECT_EQ(head.find("blocks.0.mlp.down.conv.G").shape, (Shape{32, 4, 96}));
}

TEST(Initialization, OnlyMatricesAndEmbeddingsDecay) {
  const Initialised m(wide(FilterKind::lowrank));
  for (const auto& p : m.store.all()) {
    const bool conv = p.name.find(".conv.") != std::string::npos;
    const bool norm = p.name.find("norm") != std::string::npos;
    EXPECT_EQ(p.decay == WeightDecay::yes, !conv && !norm) << p.name;
  }
}

TEST(Initialization, AValueDependsOnSeedNameAndIndexAlone) {
  ModelConfig deeper = wide(FilterKind::lowrank);
  deeper.n_layers = 5;
  const Initialised a(wide(FilterKind::none)), b(deeper), other(wide(FilterKind::none), 2);
  EXPECT_EQ(a.values("blocks.1.mlp.up.weight"), b.values("blocks.1.mlp.up.weight"));
  EXPECT_NE(a.values("blocks.1.mlp.up.weight"), other.values("blocks.1.mlp.up.weight"));
}

TEST(Initialization, IdentityConvolutionsChangeNothingAtTheStart) {
  for (const bool residual : {true, false}) {
    ModelConfig config = tiny_model(FilterKind::lowrank);
    config.conv.init = ConvInit::identity;
    config.conv.residual = residual;
    ModelHarness conv(config), plain(tiny_model(FilterKind::none));
    conv.store().initialize(1);
    plain.store().initialize(1);
    EXPECT_NEAR(conv.loss(), plain.loss(), 1e-12 * plain.loss()) << residual;
  }
}

TEST(Initialization, DepthScalingShrinksOutputProjections) {
  ModelConfig config = wide(FilterKind::none);
  const Initialised plain(config);
  config.depth_scaled_init = true;
  const Initialised scaled(config);
  EXPECT_NEAR(deviation(scaled.values("blocks.0.mlp.down.weight")),
              deviation(plain.values("blocks.0.mlp.down.weight")) / 2, 1e-12);
  EXPECT_EQ(scaled.values("blocks.0.mlp.up.weight"), plain.values("blocks.0.mlp.up.weight"));
}

}  // namespace
}  // namespace convoy::test
