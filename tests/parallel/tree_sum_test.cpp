#include "parallel/tree_sum.h"

#include <gtest/gtest.h>

#include "core/cpu/cpu_backend.h"
#include "core/random.h"
#include "parallel/thread_communicator.h"

namespace convoy {
namespace {

constexpr std::int64_t kElements = 12;

// The values of a micro-batch, of very different sizes, so that another order gives other bits.
void fill(const Tensor& values, std::int64_t index) {
  const RandomStream random(5, "values");
  for (std::int64_t i = 0; i < kElements; ++i) {
    const auto place = static_cast<std::uint64_t>(100 * index + i);
    values.data<float>()[i] =
        static_cast<float>(random.normal(place) * std::pow(10.0, random.uniform(place) * 6));
  }
}

// Each rank adds its range of micro-batches, in the order given by `order`.
template <class Order>
std::vector<float> sum_on_ranks(int ranks, std::int64_t count, Order order) {
  std::vector<float> total(kElements);
  run_on_threads(ranks, [&](Communicator& world) {
    const auto backend = make_cpu_backend(NumericsMode::invariant);
    TreeSum tree(*backend, DType::f32, kElements);
    std::vector<MicroBatchRange> owners;
    for (int r = 0; r < ranks; ++r) {
      owners.push_back({count * r / ranks, count * (r + 1) / ranks});
    }
    const MicroBatchRange own = owners[static_cast<std::size_t>(world.rank())];
    for (int step = 0; step < 2; ++step) {  // the second finds no trace of the first
      for (std::int64_t i = 0; i < own.end - own.begin; ++i) {
        const std::int64_t index = own.begin + order(i, own.end - own.begin);
        fill(tree.begin(index), index + step);
        tree.end(index);
      }
      tree.start(world, owners);
      const std::int64_t n = kElements / ranks;
      std::vector<float> part(static_cast<std::size_t>(n));
      tree.finish(Tensor(part.data(), DType::f32, DeviceKind::cpu, {n}));
      std::copy(part.begin(), part.end(), total.begin() + world.rank() * n);
    }
  });
  return total;
}

const auto kAscending = [](std::int64_t i, std::int64_t) { return i; };
const auto kDescending = [](std::int64_t i, std::int64_t count) { return count - 1 - i; };

TEST(TreeSum, HasTheSameBitsForEveryNumberOfRanksAndEveryOrder) {
  for (const std::int64_t count : {12, 13, 16, 31}) {
    const auto one = sum_on_ranks(1, count, kAscending);
    for (const int ranks : {1, 2, 3, 4, 6}) {
      EXPECT_EQ(sum_on_ranks(ranks, count, kAscending), one) << ranks << " ranks, " << count;
      EXPECT_EQ(sum_on_ranks(ranks, count, kDescending), one) << ranks << " ranks, " << count;
    }
  }
}

TEST(TreeSum, TheOrderOfASumMatters) {
  std::vector<float> straight(kElements, 0), values(kElements);
  for (std::int64_t i = 0; i < 13; ++i) {
    fill(Tensor(values.data(), DType::f32, DeviceKind::cpu, {kElements}), i + 1);
    for (std::size_t j = 0; j < values.size(); ++j) straight[j] += values[j];
  }
  EXPECT_NE(straight, sum_on_ranks(1, 13, kAscending)) << "then the other test shows nothing";
}

TEST(TreeSum, AlignedRangesAreWhatARankCanSumAlone) {
  const std::vector<MicroBatchRange> expected = {{3, 4}, {4, 8}, {8, 10}, {10, 11}};
  EXPECT_EQ(aligned_ranges({3, 11}), expected);
  EXPECT_EQ(aligned_ranges({0, 8}), (std::vector<MicroBatchRange>{{0, 8}}));
  EXPECT_TRUE(aligned_ranges({5, 5}).empty());
}

TEST(TreeSum, SharesOfOneMicroBatchAreAddedFirst) {
  // Two ranks each have half of every micro-batch's values, as under context parallelism.
  std::vector<float> total(kElements);
  run_on_threads(2, [&](Communicator& world) {
    const auto backend = make_cpu_backend(NumericsMode::invariant);
    TreeSum tree(*backend, DType::f32, kElements);
    for (std::int64_t i = 0; i < 3; ++i) {
      const Tensor values = tree.begin(i);
      for (std::int64_t j = 0; j < kElements; ++j) {
        values.data<float>()[j] = static_cast<float>((world.rank() + 1) * (i + 1));
      }
      tree.end(i);
    }
    tree.start(world, {{0, 3}, {0, 3}});
    std::vector<float> part(kElements / 2);
    tree.finish(Tensor(part.data(), DType::f32, DeviceKind::cpu, {kElements / 2}));
    std::copy(part.begin(), part.end(), total.begin() + world.rank() * kElements / 2);
  });
  EXPECT_EQ(total, std::vector<float>(kElements, 3 * (1 + 2 + 3)));
}

TEST(TreeSum, AMissingOrDoubledMicroBatchIsNamed) {
  const auto backend = make_cpu_backend(NumericsMode::invariant);
  const auto alone = make_self_communicator();
  TreeSum tree(*backend, DType::f32, kElements);
  tree.begin(0);
  EXPECT_THROW(tree.begin(1), Error);
  tree.end(0);
  EXPECT_THROW(tree.start(*alone, {{0, 2}}), Error);
  tree.begin(0);
  EXPECT_THROW(tree.end(0), Error);
}

}  // namespace
}  // namespace convoy
