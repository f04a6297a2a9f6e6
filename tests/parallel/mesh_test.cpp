#include "parallel/mesh.h"

#include <algorithm>
#include <set>

#include "parallel/thread_communicator.h"
#include "tests/parallel/communicator_suite.h"

namespace convoy::test {
namespace {

constexpr MeshAxis kAxes[] = {
    MeshAxis::world,   MeshAxis::pp,       MeshAxis::dp, MeshAxis::cp,
    MeshAxis::tp,      MeshAxis::gradient, MeshAxis::ep, MeshAxis::expert_gradient,
    MeshAxis::sequence};
static_assert(std::size(kAxes) == kMeshAxes);

const MeshShape kShapes[] = {
    {},
    {.tp = 4},
    {.pp = 3},
    {.pp = 2, .dp = 3, .cp = 2, .tp = 2, .ep = 3},
    {.pp = 2, .dp = 2, .cp = 4, .tp = 1, .ep = 8},
    {.dp = 4, .cp = 3, .tp = 2, .ep = 2},
};

TEST(Mesh, RanksAndPositionsAreInversesWithTpInnermost) {
  const MeshShape shape{.pp = 2, .dp = 3, .cp = 5, .tp = 7};
  int rank = 0;
  for (int pp = 0; pp < 2; ++pp)
    for (int dp = 0; dp < 3; ++dp)
      for (int cp = 0; cp < 5; ++cp)
        for (int tp = 0; tp < 7; ++tp, ++rank) {
          const MeshPosition expected{pp, dp, cp, tp};
          EXPECT_EQ(position_of(shape, rank), expected);
          EXPECT_EQ(rank_of(shape, expected), rank);
        }
  EXPECT_EQ(rank, shape.ranks());
  EXPECT_THROW(position_of(shape, rank), Error);
}

TEST(Mesh, TheGroupsOfAnAxisPartitionTheWorld) {
  for (const auto& shape : kShapes) {
    for (const auto axis : kAxes) {
      std::multiset<int> seen;
      std::set<std::vector<int>> groups;
      for (int rank = 0; rank < shape.ranks(); ++rank) {
        const auto members = members_of(shape, axis, rank);
        ASSERT_EQ(std::ssize(members), size_of(shape, axis));
        ASSERT_TRUE(std::is_sorted(members.begin(), members.end()));
        const int index = index_of(shape, position_of(shape, rank), axis);
        ASSERT_EQ(members[static_cast<std::size_t>(index)], rank) << name_of(axis);
        if (groups.insert(members).second) seen.insert(members.begin(), members.end());
      }
      ASSERT_EQ(std::ssize(seen), shape.ranks()) << name_of(axis);
      ASSERT_EQ(*seen.rbegin(), shape.ranks() - 1);
      ASSERT_EQ(std::set<int>(seen.begin(), seen.end()).size(), seen.size());
    }
  }
}

TEST(Mesh, MembersDifferOnlyAlongTheirAxis) {
  for (const auto& shape : kShapes) {
    for (int rank = 0; rank < shape.ranks(); ++rank) {
      const auto at = position_of(shape, rank);
      for (const auto axis : kAxes) {
        if (axis == MeshAxis::world) continue;
        for (const int member : members_of(shape, axis, rank)) {
          auto other = position_of(shape, member);
          if (axis == MeshAxis::pp) other.pp = at.pp;
          if (axis == MeshAxis::tp || axis == MeshAxis::sequence) other.tp = at.tp;
          if (axis != MeshAxis::pp && axis != MeshAxis::tp) {
            if (axis != MeshAxis::cp && axis != MeshAxis::sequence) other.dp = at.dp;
            if (axis != MeshAxis::dp) other.cp = at.cp;
          }
          ASSERT_EQ(other, at) << name_of(axis);
        }
      }
    }
  }
}

// Every expert of a (pp, tp) is held once in each ep group, and the ranks that hold the same one
// are those of its gradient group.
TEST(Mesh, ExpertsFoldOverDpAndCp) {
  const MeshShape shape{.dp = 2, .cp = 4, .tp = 2, .ep = 4};
  EXPECT_EQ(members_of(shape, MeshAxis::gradient, 1),
            (std::vector<int>{1, 3, 5, 7, 9, 11, 13, 15}));
  EXPECT_EQ(members_of(shape, MeshAxis::ep, 1), (std::vector<int>{1, 3, 5, 7}));
  EXPECT_EQ(members_of(shape, MeshAxis::expert_gradient, 1), (std::vector<int>{1, 9}));
}

TEST(Mesh, ProblemsComeTogetherWithNumbersAndRemedies) {
  EXPECT_TRUE(mesh_problems({.pp = 2, .dp = 2, .ep = 2}, 4).empty());
  const auto problems = mesh_problems({.dp = 6, .tp = 2, .ep = 4}, 8);
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_EQ(problems[0],
            "8 ranks cannot form the mesh pp 1 x dp 6 x cp 1 x tp 2 with ep 4 = 12: start 12 ranks "
            "or set parallel.dp = 4");
  EXPECT_EQ(problems[1], "parallel.ep = 4 does not divide dp * cp = 6: set parallel.ep = 3");
  EXPECT_EQ(mesh_problems({.tp = 3}, 1).at(0),
            "1 rank cannot form the mesh pp 1 x dp 1 x cp 1 x tp 3 = 3: start 3 ranks");
  EXPECT_EQ(mesh_problems({.pp = 0, .cp = -2}, 4).size(), 2U);
}

TEST(Mesh, RefusesTheWrongNumberOfRanks) {
  const auto world = make_self_communicator();
  EXPECT_THROW(Mesh(*world, {.tp = 2}), Error);
}

TEST(Mesh, ItsCommunicatorsJoinTheMembersOfEachAxis) {
  const MeshShape shape{.pp = 2, .dp = 2, .cp = 2, .tp = 1, .ep = 2};
  run_on_threads(shape.ranks(), [&](Communicator& world) {
    const Mesh mesh(world, shape);
    EXPECT_EQ(mesh.position(), position_of(shape, world.rank()));
    for (const auto axis : kAxes) {
      Communicator& group = mesh.on(axis);
      std::vector<double> mine = {double(world.rank())},
                          all(static_cast<std::size_t>(group.size()));
      group.all_gather(view(all), view(mine)).wait();
      const auto members = members_of(shape, axis, world.rank());
      EXPECT_EQ(all, std::vector<double>(members.begin(), members.end())) << name_of(axis);
    }
  });
}

}  // namespace
}  // namespace convoy::test
