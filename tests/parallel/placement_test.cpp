#include "parallel/placement.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <numeric>

namespace convoy {
namespace {

std::int64_t elements(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

// How often each global element is held along the split axis, and that blocks say the same.
std::vector<int> holders(const Placement& placement, const MeshShape& mesh) {
  std::vector<int> count(static_cast<std::size_t>(elements(placement.shape)), 0);
  for (int rank = 0; rank < mesh.ranks(); ++rank) {
    const Shard shard(placement, mesh, position_of(mesh, rank));
    for (std::int64_t i = 0; i < shard.size(); ++i) {
      if (const auto global = shard.global_index_of(i)) ++count.at(std::size_t(*global));
    }
  }
  return count;
}

// Row-major index of a place in `shape`.
std::int64_t index_in(const std::vector<std::int64_t>& shape,
                      const std::vector<std::int64_t>& place) {
  std::int64_t index = 0;
  for (std::size_t d = 0; d < shape.size(); ++d) index = index * shape[d] + place[d];
  return index;
}

// local -> global as the blocks have it.
std::map<std::int64_t, std::int64_t> through_blocks(const Placement& placement,
                                                    const Shard& shard) {
  std::map<std::int64_t, std::int64_t> pairs;
  for (const ShardBlock& block : shard.blocks()) {
    for (std::int64_t i = 0; i < elements(block.count); ++i) {
      auto local = block.local_begin, global = block.global_begin;
      std::int64_t rest = i;
      for (std::size_t d = local.size(); d-- > 0; rest /= block.count[d]) {
        local[d] += rest % block.count[d];
        global[d] += rest % block.count[d];
      }
      pairs[index_in(shard.shape(), local)] = index_in(placement.shape, global);
    }
  }
  return pairs;
}

std::vector<Placement> many_placements() {
  std::vector<Placement> all = {{.shape = {5, 3}}};
  for (const auto padding : {Padding::refused, Padding::allowed}) {
    for (const MeshAxis axis : {MeshAxis::tp, MeshAxis::ep}) {
      all.push_back({.shape = {12, 5}, .split = Split{0, axis, 1, padding}});
      all.push_back({.shape = {5, 24}, .split = Split{1, axis, 2, padding}});
      all.push_back({.shape = {3, 4, 36, 2}, .split = Split{2, axis, 3, padding}});
      all.push_back({.shape = {8}, .split = Split{0, axis, 2, padding}});
    }
  }
  all.push_back({.shape = {257, 3}, .split = Split{0, MeshAxis::tp, 1, Padding::allowed}});
  all.push_back({.shape = {3, 14}, .split = Split{1, MeshAxis::tp, 2, Padding::allowed}});
  all.push_back({.shape = {1, 2}, .split = Split{0, MeshAxis::tp, 1, Padding::allowed}});
  return all;
}

const MeshShape kMesh{.pp = 2, .dp = 2, .cp = 2, .tp = 4, .ep = 4};

TEST(Placement, EveryElementIsHeldByExactlyOneRankOfItsAxis) {
  for (const auto& placement : many_placements()) {
    const int copies =
        kMesh.ranks() / (placement.split ? size_of(kMesh, placement.split->axis) : 1);
    for (const int count : holders(placement, kMesh)) ASSERT_EQ(count, copies);
  }
}

TEST(Placement, BlocksAndIndicesAgree) {
  for (const auto& placement : many_placements()) {
    for (int rank = 0; rank < kMesh.ranks(); ++rank) {
      const Shard shard(placement, kMesh, position_of(kMesh, rank));
      std::map<std::int64_t, std::int64_t> pairs;
      for (std::int64_t i = 0; i < shard.size(); ++i) {
        if (const auto global = shard.global_index_of(i)) pairs[i] = *global;
      }
      ASSERT_EQ(pairs, through_blocks(placement, shard)) << rank;
    }
  }
}

TEST(Placement, SectionsAreCutOneByOne) {  // two joined matrices of 4 rows over two ranks
  const Placement joined{.shape = {8, 3}, .split = Split{0, MeshAxis::tp, 2}};
  const Shard second(joined, {.tp = 2}, {.tp = 1});
  EXPECT_EQ(second.shape(), (std::vector<std::int64_t>{4, 3}));
  const std::int64_t rows[] = {2, 3, 6, 7};
  for (std::int64_t i = 0; i < 4; ++i) EXPECT_EQ(second.global_row_of(i), rows[i]);
  EXPECT_EQ(second.global_index_of(2 * 3 + 1), 6 * 3 + 1);
}

TEST(Placement, AnOddVocabularyIsPaddedAtItsEnd) {
  const Placement table{.shape = {257, 2}, .split = Split{0, MeshAxis::tp, 1, Padding::allowed}};
  const Shard last(table, {.tp = 4}, {.tp = 3});  // 4 x 65 rows
  EXPECT_EQ(last.shape()[0], 65);
  EXPECT_EQ(last.global_row_of(61), 256);
  EXPECT_EQ(last.global_row_of(62), std::nullopt);
  ASSERT_EQ(last.blocks().size(), 1U);
  EXPECT_EQ(last.blocks()[0].count[0], 62);
}

TEST(Placement, ARankMayHoldNothingButPadding) {  // 5 rows over 4 ranks: 2, 2, 1, 0
  const Placement table{.shape = {5, 2}, .split = Split{0, MeshAxis::tp, 1, Padding::allowed}};
  EXPECT_TRUE(Shard(table, {.tp = 4}, {.tp = 3}).blocks().empty());
  EXPECT_EQ(Shard(table, {.tp = 4}, {.tp = 3}).size(), 4);
}

TEST(Placement, WhatDoesNotDivideIsRefusedWithTheRemedy) {
  const Placement odd{.shape = {6, 4}, .split = Split{0, MeshAxis::tp}};
  EXPECT_EQ(placement_problem("blocks.0.mlp.up.weight", odd, {.tp = 4}),
            "dim 0 of blocks.0.mlp.up.weight [6, 4] has 6 rows, which tp = 4 does not divide: set "
            "parallel.tp = 3, or a size that is a multiple of 4");
  EXPECT_THROW(Shard(odd, {.tp = 4}, {}), Error);
  EXPECT_EQ(placement_problem("w", odd, {.tp = 3}), std::nullopt);
  const Placement sections{.shape = {6, 4}, .split = Split{1, MeshAxis::tp, 3}};
  EXPECT_EQ(placement_problem("w", sections, {.tp = 1}),
            "dim 1 of w [6, 4] is not 3 equal sections: join matrices of equal size, or split them "
            "one by one");
  const Placement absent{.shape = {6}, .split = Split{1, MeshAxis::tp}};
  EXPECT_TRUE(placement_problem("w", absent, {}).has_value());
}

TEST(Placement, WhatIsNotSplitIsWholeEverywhere) {
  const Shard shard({.shape = {4, 3}}, kMesh, {.tp = 2});
  EXPECT_EQ(shard.size(), 12);
  EXPECT_EQ(shard.global_index_of(7), 7);
  EXPECT_THROW(static_cast<void>(shard.global_index_of(12)), Error);
}

}  // namespace
}  // namespace convoy
