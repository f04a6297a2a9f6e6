// Every way of splitting a model over ranks gives what one rank gives: the loss of every row and
// every gradient tensor. U, G and s are drawn from N(0, 0.1), see redraw.
#include "tests/models/sharding_harness.h"

namespace convoy::test {
namespace {

constexpr auto kYes = SequenceParallel::yes;
constexpr auto kNo = SequenceParallel::no;
constexpr FilterKind kKinds[] = {FilterKind::none, FilterKind::fixed, FilterKind::headwise,
                                 FilterKind::lowrank};

// 1e-12 of the norm in f64: the sums are as long on all ranks as on one.
constexpr double kF64 = 1e-12;

// A model that every splitting here divides, its vocabulary odd; with all sites convolved. T = 32
// on 16 ranks leaves segments of one row, fewer than W - 1.
ModelConfig shardable_model(FilterKind kind) {
  ModelConfig m;
  m.vocab = 19;
  m.d_model = 32;
  m.n_layers = 2;
  m.n_heads = 8;
  m.d_ff = 24;
  m.seq_len = 32;
  m.conv.kind = kind;
  m.conv.on = kAllSites;
  m.conv.rank = 5;
  m.conv.head_size = 2;
  return m;
}

ModelConfig grouped(ModelConfig m) {
  m.n_kv_heads = 4;
  m.qk_norm = true;
  m.tie_embeddings = true;
  return m;
}

ModelConfig plain(ModelConfig m) {
  m.tie_embeddings = false;
  m.conv.residual = false;
  m.conv.width = 3;
  return m;
}

// Documents of one row, and starts inside halos wherever the cuts are.
const std::vector<std::vector<std::int64_t>> kDocuments = {{3, 5, 1, 1, 7}, {17, 1, 9}};

const std::vector<Splitting> kTensorParallel = {
    {{.tp = 2}, kNo}, {{.tp = 2}, kYes}, {{.tp = 4}, kNo}, {{.tp = 4}, kYes}};
const std::vector<Splitting> kContextParallel = {{{.cp = 2}, kNo}, {{.cp = 4}, kNo}};
const std::vector<Splitting> kMixed = {{{.cp = 2, .tp = 2}, kNo},
                                       {{.cp = 2, .tp = 2}, kYes},
                                       {{.cp = 4, .tp = 2}, kYes},
                                       {{.cp = 2, .tp = 4}, kYes},
                                       {{.cp = 4, .tp = 4}, kYes}};

const std::vector<Splitting> kWithHalos = {{{.tp = 4}, kYes}, {{.cp = 2, .tp = 2}, kYes}};
const std::vector<Splitting> kSome = {
    {{.tp = 2}, kNo}, {{.tp = 4}, kYes}, {{.cp = 2, .tp = 2}, kYes}};

void expect_one_rank(const Task& task, const std::vector<Splitting>& splittings) {
  const Outcome expected = on_one_rank(task);
  for (const Splitting& splitting : splittings) {
    SCOPED_TRACE(splitting.describe());
    expect_equal(expected, on_ranks(task, splitting), kF64);
  }
}

class ShardedModel : public testing::TestWithParam<FilterKind> {
 protected:
  void expect_all(const std::vector<Splitting>& splittings) {
    const ModelConfig base = shardable_model(GetParam());
    for (const ModelConfig& model : {grouped(base), plain(base)}) {
      SCOPED_TRACE(model.qk_norm ? "grouped heads, QK-norm, tied" : "untied");
      expect_one_rank({model, 2, kDocuments}, splittings);
    }
  }
};

TEST_P(ShardedModel, TensorParallelEqualsOneRank) { expect_all(kTensorParallel); }
TEST_P(ShardedModel, ContextParallelEqualsOneRank) { expect_all(kContextParallel); }
TEST_P(ShardedModel, MixturesOfBothEqualOneRank) { expect_all(kMixed); }

INSTANTIATE_TEST_SUITE_P(AllKinds, ShardedModel, testing::ValuesIn(kKinds), filter_name);

TEST(Sharding, OneSequenceNeedsNoReordering) {
  expect_one_rank({grouped(shardable_model(FilterKind::lowrank)), 1, kDocuments},
                  {{{.tp = 2}, kYes}, {{.cp = 2, .tp = 2}, kYes}});
}

// A halo of W - 1 = 7 rows over segments of one or two.
TEST(Sharding, ASegmentMayBeShorterThanTheHalo) {
  for (const FilterKind kind : kKinds) {
    ModelConfig model = grouped(shardable_model(kind));
    model.seq_len = 16;
    model.conv.width = 8;
    expect_one_rank({model, 2, {{}, {9}}},
                    {{{.tp = 4}, kYes}, {{.cp = 4}, kNo}, {{.cp = 2, .tp = 4}, kYes}});
  }
}

// Where every document is one row, q and k have no gradient at all.
TEST(Sharding, TheSmallestSequences) {
  ModelConfig model = grouped(shardable_model(FilterKind::lowrank));
  const auto expect = [&](std::int64_t length, const std::vector<Splitting>& splittings) {
    model.seq_len = length;
    const Task task{model, 3, {{1, 1, 1}}, DType::f64, 0, length};
    const Outcome expected = on_one_rank(task);
    for (const Splitting& splitting : splittings) {
      SCOPED_TRACE(splitting.describe());
      expect_near(expected, on_ranks(task, splitting), kF64);
    }
  };
  expect(1, {{{.tp = 2}, kNo}, {{.tp = 4}, kNo}});
  expect(4, {{{.tp = 4}, kYes}, {{.cp = 2}, kNo}});
}

TEST(Sharding, SomeSitesOnly) {
  for (const auto& on : std::vector<std::vector<ConvSite>>{
           {ConvSite::q, ConvSite::v}, {ConvSite::up, ConvSite::o}, {ConvSite::down}}) {
    ModelConfig model = grouped(shardable_model(FilterKind::lowrank));
    model.conv.on = on;
    expect_one_rank({model, 2, kDocuments}, {{{.tp = 2}, kYes}, {{.cp = 2, .tp = 2}, kYes}});
  }
}

TEST(Sharding, MoreRanksThanClasses) {
  ModelConfig model = grouped(shardable_model(FilterKind::none));
  model.vocab = 5;  // parts of 2, 2, 1 and none
  expect_one_rank({model, 2, kDocuments}, {{{.tp = 4}, kNo}, {{.tp = 4}, kYes}});
}

TEST(Sharding, RecomputeChangesNoBit) {
  for (const Splitting& splitting : kWithHalos) {
    Task task{grouped(shardable_model(FilterKind::lowrank)), 2, kDocuments};
    const Outcome kept = on_ranks(task, splitting);
    task.recompute_blocks = 2;
    const Outcome recomputed = on_ranks(task, splitting);
    EXPECT_EQ(kept.losses, recomputed.losses);
    EXPECT_EQ(kept.gradients, recomputed.gradients);
  }
}

TEST(Sharding, OverlapChangesNoBit) {
  for (const FilterKind kind : kKinds) {
    for (Splitting splitting : kWithHalos) {
      const Task task{grouped(shardable_model(kind)), 2, kDocuments};
      const Outcome with = on_ranks(task, splitting);
      splitting.overlap = Overlap::no;
      const Outcome without = on_ranks(task, splitting);
      EXPECT_EQ(with.losses, without.losses);
      EXPECT_EQ(with.gradients, without.gradients);
    }
  }
}

// Chunks that end inside of segments, some shorter than W - 1 rows, one a row.
TEST(Sharding, ChunksOfAGatherChangeNothing) {
  for (const FilterKind kind : kKinds) {
    const Task task{grouped(shardable_model(kind)), 3, kDocuments};
    const Outcome expected = on_one_rank(task);
    for (const GatherChunks chunks :
         {GatherChunks{7, 1}, GatherChunks{5, 3}, GatherChunks{99, 1}}) {
      for (const MeshShape& mesh :
           {MeshShape{.tp = 2}, MeshShape{.tp = 4}, MeshShape{.cp = 2, .tp = 2}}) {
        Splitting splitting{mesh, kYes, Overlap::yes, chunks};
        SCOPED_TRACE(splitting.describe());
        const Outcome with = on_ranks(task, splitting);
        expect_equal(expected, with, kF64);
        splitting.overlap = Overlap::no;
        const Outcome without = on_ranks(task, splitting);
        EXPECT_EQ(with.losses, without.losses);
        EXPECT_EQ(with.gradients, without.gradients);
      }
    }
  }
}

// As long a chain of roundings as F32StaysNearF64 counts: two blocks of about ten operations over
// at most 32 channels and keys.
TEST(Sharding, F32StaysAsNearAsItsChainOfRoundings) {
  const double chain = 2 * 10 * 32 * unit_roundoff(DType::f32);
  for (const FilterKind kind : kKinds) {
    Task task{grouped(shardable_model(kind)), 2, kDocuments};
    const Outcome expected = on_one_rank(task);
    task.dtype = DType::f32;
    for (const Splitting& splitting : kSome) {
      SCOPED_TRACE(splitting.describe());
      expect_near(expected, on_ranks(task, splitting), 2 * chain);
    }
  }
}

// The last window of a validation file, shorter than seq_len.
TEST(Sharding, AShorterWindowIsPaddedAndMasked) {
  for (const std::int64_t length : {1, 13, 31}) {
    Task task{grouped(shardable_model(FilterKind::lowrank)), 2, {{}}};
    task.length = length;
    RankPass alone(task, one_rank());
    alone.evaluate();
    std::vector<double> expected, actual;
    alone.put_losses(expected);
    for (const Splitting& splitting : kWithHalos) {
      on_each_rank(splitting, [&](Communicator& world, const Sharding& sharding) {
        RankPass pass(task, sharding);
        pass.evaluate();
        for (int turn = 0; turn < world.size(); ++turn) {
          world.barrier();
          if (turn == world.rank()) pass.put_losses(actual);
        }
      });
      EXPECT_LE(distance(expected, actual), kF64 * norm(expected)) << length;
    }
  }
}

}  // namespace
}  // namespace convoy::test
