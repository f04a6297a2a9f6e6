// Parts of sharding by themselves: initial values, refusals, a batch cut into rows, memory.
#include "core/null_backend.h"
#include "tests/models/sharding_harness.h"

namespace convoy::test {
namespace {

constexpr auto kYes = SequenceParallel::yes;
constexpr auto kNo = SequenceParallel::no;

ModelConfig small_model(FilterKind kind) {
  ModelConfig m = tiny_model(kind);
  m.d_ff = 24;
  m.seq_len = 16;
  return m;
}

const std::vector<Splitting> kSplittings = {
    {{.tp = 2}, kNo}, {{.tp = 4}, kYes}, {{.cp = 2, .tp = 2}, kYes}};

// Bit for bit, without communication: a value is a function of its global index.
TEST(ShardedStart, EveryRankHoldsItsPartOfTheSameModel) {
  for (const FilterKind kind : {FilterKind::headwise, FilterKind::lowrank}) {
    for (const ConvInit init : {ConvInit::uniform, ConvInit::identity}) {
      ModelConfig model = small_model(kind);
      model.conv.init = init;
      model.conv.residual = false;
      model.conv.head_size = 2;
      const auto backend = make_cpu_backend(NumericsMode::fast);
      ParameterStore whole;
      const Transformer reference(whole, model);
      whole.allocate(*backend, DType::f64);
      whole.initialize(5);
      Tensors expected;
      for (const auto& p : whole.all()) expected[p.name] = doubles(p.value);
      for (const Splitting& splitting : kSplittings) {
        on_each_rank(splitting, [&](Communicator&, const Sharding& sharding) {
          const auto own_backend = make_cpu_backend(NumericsMode::fast);
          ParameterStore store(sharding.mesh, sharding.position);
          const Transformer shard(store, model, 0, sharding);
          store.allocate(*own_backend, DType::f64);
          store.initialize(5);
          ASSERT_EQ(store.all().size(), expected.size());
          for (const auto& p : store.all()) {
            const auto values = doubles(p.value);
            for (std::int64_t i = 0; i < p.size(); ++i) {
              const auto index = p.shard.global_index_of(i);
              const double wanted =
                  index ? expected.at(p.name)[static_cast<std::size_t>(*index)] : 0;
              ASSERT_EQ(values[static_cast<std::size_t>(i)], wanted) << p.name << ' ' << i;
            }
          }
        });
      }
    }
  }
}

TEST(ShardedStart, RanksHoldTheirShareOfTheParameters) {
  const ModelConfig model = small_model(FilterKind::lowrank);
  on_each_rank({{.tp = 4}, kYes}, [&](Communicator&, const Sharding& sharding) {
    ParameterStore store(sharding.mesh, sharding.position);
    const Transformer shard(store, model, 0, sharding);
    const auto shape = [&](const std::string& name) {
      for (const auto& p : store.all()) {
        if (p.name == "blocks.1." + name) return p.shape;
      }
      return std::vector<std::int64_t>{};
    };
    using Shape = std::vector<std::int64_t>;
    EXPECT_EQ(shape("attention.q.weight"), (Shape{6, 24}));
    EXPECT_EQ(shape("attention.q.conv.A"), (Shape{5, 24}));
    EXPECT_EQ(shape("attention.q.conv.U"), (Shape{5, 4, 6}));
    EXPECT_EQ(shape("mlp.down.weight"), (Shape{24, 6}));
    EXPECT_EQ(shape("mlp.down.conv.A"), (Shape{5, 6}));
    EXPECT_EQ(shape("mlp.down.conv.s"), (Shape{4, 24}));
    EXPECT_EQ(store.all().front().shape, (Shape{5, 24}));  // 19 classes over 4 ranks
  });
}

TEST(ShardingRefusals, NameTheNumbersAndARemedy) {
  ModelConfig model = small_model(FilterKind::headwise);
  model.conv.head_size = 4;
  model.n_heads = 6;
  model.n_kv_heads = 2;
  model.d_ff = 21;
  model.seq_len = 18;
  EXPECT_TRUE(sharding_problems(model, {}, kNo).empty());
  const auto problems = sharding_problems(model, {.cp = 2, .tp = 4}, kYes);
  const std::vector<std::string> expected = {
      "parallel.tp = 4 does not divide model.n_heads = 6: set parallel.tp = 3, or model.n_heads to "
      "a multiple of 4",
      "parallel.tp = 4 does not divide model.n_kv_heads = 2: set parallel.tp = 2, or "
      "model.n_kv_heads to a multiple of 4",
      "parallel.tp = 4 does not divide model.d_ff = 21: set parallel.tp = 3, or model.d_ff to a "
      "multiple of 4",
      "model.conv.head_size = 4 does not divide the 6 channels of q that each of 4 tp ranks has: "
      "set model.conv.head_size = 2 or a smaller parallel.tp",
      "model.conv.head_size = 4 does not divide the 2 channels of k that each of 4 tp ranks has: "
      "set model.conv.head_size = 2 or a smaller parallel.tp",
      "model.conv.head_size = 4 does not divide the 2 channels of v that each of 4 tp ranks has: "
      "set model.conv.head_size = 2 or a smaller parallel.tp",
      "model.seq_len = 18 is not a multiple of 16 = 2 cp tp: set model.seq_len = 16 or 32"};
  EXPECT_EQ(problems, expected);
}

TEST(ShardingRefusals, AModelIsNotBuiltWhereItCannotBeSplit) {
  ModelConfig model = small_model(FilterKind::none);
  model.seq_len = 15;
  EXPECT_THROW(on_each_rank({{.tp = 2}, kYes},
                            [&](Communicator&, const Sharding& sharding) {
                              ParameterStore store(sharding.mesh, sharding.position);
                              const Transformer shard(store, model, 0, sharding);
                            }),
               Error);
}

using Numbers = std::vector<std::int32_t>;

// Positions 0 to 7 over cp 2: chunks of two; rank 0 has the first and the last. A window of 7 is
// padded with a row that is a document of its own.
TEST(BatchRows, AreThoseOfTheRanksSegments) {
  const Numbers tokens = {10, 11, 12, 13, 14, 15, 16}, targets = {11, 12, 13, -1, 15, 16, 17};
  const Numbers start = {0, 0, 0, 3, 4, 4, 4};
  on_each_rank({{.cp = 2, .tp = 2}, kYes}, [&](Communicator& world, const Sharding& sharding) {
    const BatchRows rows = rows_of_rank({1, 7, tokens, targets, start}, sharding);
    EXPECT_EQ(rows.length, 4);
    if (sharding.cp.rank() == 0) {
      EXPECT_EQ(rows.tokens, (Numbers{10, 11, 16, 0}));
      EXPECT_EQ(rows.targets, (Numbers{11, 12, 17, -1}));
      EXPECT_EQ(rows.positions, (Numbers{0, 1, 6, 7}));
      EXPECT_EQ(rows.document_start, (Numbers{0, 0, 4, 7}));
      EXPECT_EQ(rows.reach, (Numbers{0, 1, 2, 0}));
    } else {
      EXPECT_EQ(rows.tokens, (Numbers{12, 13, 14, 15}));
      EXPECT_EQ(rows.reach, (Numbers{2, 0, 0, 1}));
    }
    const std::vector<Numbers> own = {{0, 2}, {1, 0}, {2, 0}, {0, 1}};
    EXPECT_EQ(rows.own_reach, own[static_cast<std::size_t>(world.rank())]);
  });
}

TEST(BatchRows, ARankAloneHasThemAll) {
  const Numbers tokens = {1, 2, 3, 4}, targets = {2, -1, 4, -1}, start = {0, 0, 0, 1};
  const BatchRows rows = rows_of_rank({2, 2, tokens, targets, start}, one_rank());
  EXPECT_EQ(rows.tokens, tokens);
  EXPECT_EQ(rows.targets, targets);
  EXPECT_EQ(rows.positions, (Numbers{0, 1, 0, 1}));
  EXPECT_EQ(rows.reach, (Numbers{0, 1, 0, 0}));
  EXPECT_EQ(rows.own_reach, rows.reach);
}

// What is measured among ranks that do not answer is what training takes among those that do.
TEST(ShardedMemory, TheMeasuredArenaIsExactlyWhatTrainingTakes) {
  for (const std::int64_t recompute : {0, 1}) {
    for (const Splitting& splitting : kSplittings) {
      const Task task{small_model(FilterKind::lowrank), 2, {{3, 5, 1}}, DType::f64, recompute};
      on_each_rank(splitting, [&](Communicator&, const Sharding& sharding) {
        RankPass pass(task, sharding);
        pass.train();
        NullBackend nothing;
        const SilentSharding silent(sharding);
        ParameterStore unused(sharding.mesh, sharding.position);
        const Transformer shape(unused, task.model, recompute, silent.view());
        unused.allocate(nothing, DType::f64);
        Arena measuring = Arena::measuring(nothing, "measuring");
        const BatchView batch = pass.batch();
        const Tensor losses(&nothing, DType::f64, DeviceKind::cpu, {batch.rows()});
        shape.train({nothing, measuring, DType::f64}, batch, losses, 1);
        EXPECT_EQ(measuring.high_water(), pass.arena().high_water());
      });
    }
  }
}

}  // namespace
}  // namespace convoy::test
