#include "models/accounting.h"

#include "core/null_backend.h"
#include "tests/models/model_harness.h"

namespace convoy::test {
namespace {

ModelConfig published_300m() {
  ModelConfig m;
  m.d_model = 1024;
  m.n_layers = 16;
  m.n_heads = 16;
  m.d_ff = 2752;
  m.vocab = 100352;
  m.seq_len = 4096;
  return m;
}

ModelConfig with_conv(ModelConfig m, FilterKind kind, std::vector<ConvSite> on,
                      std::int64_t head_size = 16) {
  m.conv.kind = kind;
  m.conv.on = std::move(on);
  m.conv.head_size = head_size;
  return m;
}

const std::vector<ConvSite> kQkv = {ConvSite::q, ConvSite::k, ConvSite::v};

TEST(Accounting, ParametersEqualThePublishedCounts) {
  const auto count = [](const ModelConfig& m) { return count_parameters(m).total; };
  const ModelConfig m = published_300m();
  EXPECT_EQ(count(m), 305169408);
  EXPECT_EQ(count(with_conv(m, FilterKind::lowrank, kQkv)), 309298176);
  EXPECT_EQ(count(with_conv(m, FilterKind::headwise, kQkv, 8)), 330531840);
  EXPECT_EQ(count(with_conv(m, FilterKind::headwise, kQkv, 128)), 306938880);
  EXPECT_EQ(count(with_conv(m, FilterKind::lowrank, kAllSites)), 319005696);
  ModelConfig large = m;
  large.d_model = 2048;
  large.n_layers = 32;
  large.d_ff = 5504;
  EXPECT_EQ(count(large), 1824655360);
}

TEST(Accounting, FlopsEqualTheirFormulas) {
  const FlopParts plain = training_flops_per_token(published_300m());
  EXPECT_EQ(plain.linear, 1214251008);
  EXPECT_EQ(plain.attention, 402751488);
  EXPECT_EQ(plain.head, 616562688);
  EXPECT_EQ(plain.conv, 0);
  const auto conv = [](std::vector<ConvSite> on) {
    return training_flops_per_token(with_conv(published_300m(), FilterKind::lowrank, std::move(on)))
        .conv;
  };
  EXPECT_EQ(conv(kQkv), 24772608);
  EXPECT_EQ(conv(kAllSites), 83017728);
}

TEST(Accounting, DerivedConventionsAreNamed) {
  const ModelConfig m = published_300m();
  EXPECT_EQ(training_flops_per_token(m, "parts"), training_flops_per_token(m).total());
  EXPECT_EQ(training_flops_per_token(m, "6n"), 6.0 * 305169408);
  EXPECT_EQ(training_flops_per_token(m, "causal"), 6.0 * 305169408 + 6.0 * 16 * 1024 * 4096);
  EXPECT_EQ(training_flops_per_token(m, "full"), 6.0 * 305169408 + 12.0 * 16 * 1024 * 4096);
  EXPECT_THROW(training_flops_per_token(m, "guess"), Error);
}

TEST(Accounting, TheFormulaCountsWhatAModelDeclares) {
  const RandomStream random(5, "configs");
  std::uint64_t draw = 0;
  const auto pick = [&](std::int64_t most) {
    return 1 + static_cast<std::int64_t>(random.bits(draw++)[0] % static_cast<std::uint32_t>(most));
  };
  for (int i = 0; i < 200; ++i) {
    ModelConfig m;
    m.n_kv_heads = pick(3);
    m.n_heads = m.n_kv_heads * pick(3);
    m.conv.head_size = pick(4);
    m.d_model = m.n_heads * m.conv.head_size * 2 * pick(3);
    m.d_ff = m.conv.head_size * pick(20);
    m.n_layers = pick(3);
    m.vocab = 1 + pick(30);
    m.qk_norm = pick(2) == 1;
    m.tie_embeddings = pick(2) == 1;
    m.conv.kind = static_cast<FilterKind>(pick(4) - 1);
    m.conv.width = static_cast<int>(pick(8));
    m.conv.rank = pick(20);
    m.conv.on.clear();
    for (const ConvSite site : kAllSites) {
      if (pick(2) == 1) m.conv.on.push_back(site);
    }
    ParameterStore store;
    const Transformer model(store, m);
    ASSERT_EQ(store.count(), count_parameters(m).total) << m.label();
    ASSERT_EQ(count_parameters(m).non_embedding, store.count() - m.vocab * m.d_model);
  }
}

}  // namespace
}  // namespace convoy::test
