// Logits of the labelled rows alone give what logits of all rows give: the same bits in every loss
// and every gradient but the head's, whose sums have another order; on one rank and on many.
#include "tests/models/sharding_harness.h"

namespace convoy::test {
namespace {

constexpr auto kAll = LabelRowsNamed::no;
constexpr auto kNamed = LabelRowsNamed::yes;

Task recall_like(DType dtype, std::int64_t one_in) {
  ModelConfig model = tiny_model(FilterKind::lowrank);
  model.d_model = 32;
  model.d_ff = 24;
  model.conv.head_size = 2;
  model.n_heads = 4;
  model.seq_len = 32;
  Task task{model, 3, {{5, 9}}, dtype};
  task.labels_one_in = one_in;
  return task;
}

// The head's gradient is a sum over at most 96 rows of products of a probability and a hidden
// value, which the final norm keeps below sqrt(32); in another order it moves by its rounding.
double head_bound(const Task& task) {
  return 96 * unit_roundoff(task.dtype) * std::sqrt(32.0) * 96;
}

TEST(Labels, NamingTheRowsChangesNoBitButInTheHeadsSum) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    for (const std::int64_t one_in : {1, 2, 7}) {
      SCOPED_TRACE(concat(name_of(dtype), ", a label in ", one_in));
      const Task task = recall_like(dtype, one_in);
      const Outcome all = on_one_rank(task, kAll), named = on_one_rank(task, kNamed);
      EXPECT_EQ(named.losses, all.losses);
      EXPECT_GT(norm(all.losses), 0);
      for (const auto& [name, gradient] : all.gradients) {
        const auto& other = named.gradients.at(name);
        if (name == "embedding.weight") {
          EXPECT_LE(distance(gradient, other), head_bound(task));
        } else {
          EXPECT_EQ(other, gradient) << name;
        }
      }
    }
  }
}

TEST(Labels, ABatchWithoutAnyHasNoLossAndNoGradient) {
  const Outcome outcome = on_one_rank(recall_like(DType::f64, 1 << 20), kNamed);
  EXPECT_EQ(norm(outcome.losses), 0);
  EXPECT_EQ(norm_of_all(outcome.gradients), 0);
}

// A rank of context parallelism may have no label at all while its neighbours have some.
TEST(Labels, EveryLayoutGivesTheSame) {
  for (const std::int64_t one_in : {3, 40}) {
    const Task task = recall_like(DType::f64, one_in);
    const Outcome expected = on_one_rank(task, kAll);
    for (const Splitting& splitting :
         std::vector<Splitting>{{{.tp = 2}, SequenceParallel::no},
                                {{.tp = 4}, SequenceParallel::yes},
                                {{.cp = 4}, SequenceParallel::no},
                                {{.cp = 2, .tp = 2}, SequenceParallel::yes}}) {
      SCOPED_TRACE(concat(splitting.describe(), ", a label in ", one_in));
      expect_equal(expected, on_ranks(task, splitting, kNamed), 1e-12);
    }
  }
}

TEST(Labels, EvaluationSeesTheSameLossesAndStatistics) {
  const Task task = recall_like(DType::f64, 6);
  std::vector<std::vector<double>> losses, statistics;
  for (const auto named : {kAll, kNamed}) {
    RankPass pass(task, one_rank(), named);
    const BatchView batch = pass.batch();
    std::vector<double> loss(static_cast<std::size_t>(batch.rows()), -1);
    std::vector<double> numbers(3 * loss.size(), -1);
    pass.model().evaluate(pass.context(), batch,
                          Tensor(loss.data(), DType::f64, DeviceKind::cpu, {batch.rows()}),
                          Tensor(numbers.data(), DType::f64, DeviceKind::cpu, {batch.rows(), 3}));
    for (std::int64_t i = 0; i < batch.rows(); ++i) {  // rows without a label are nobody's business
      if (batch.targets.data<std::int32_t>()[i] >= 0) continue;
      std::fill_n(numbers.begin() + 3 * i, 3, 0.0);
    }
    losses.push_back(loss);
    statistics.push_back(numbers);
  }
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(statistics[0], statistics[1]);
}

}  // namespace
}  // namespace convoy::test
