#include "parallel/mesh.h"

#include <algorithm>

namespace convoy {
namespace {

// Place among the dp * cp ranks that share a (pp, tp).
int gradient_index(const MeshShape& shape, const MeshPosition& at) {
  return at.dp * shape.cp + at.cp;
}

MeshPosition with_gradient_index(const MeshShape& shape, MeshPosition at, int index) {
  at.dp = index / shape.cp;
  at.cp = index % shape.cp;
  return at;
}

// The position of member `index` of the group of `at`; the inverse of index_of.
MeshPosition member_at(const MeshShape& shape, MeshPosition at, MeshAxis axis, int index) {
  const int place = gradient_index(shape, at);
  switch (axis) {
    case MeshAxis::world: return position_of(shape, index);
    case MeshAxis::pp: at.pp = index; return at;
    case MeshAxis::dp: at.dp = index; return at;
    case MeshAxis::cp: at.cp = index; return at;
    case MeshAxis::tp: at.tp = index; return at;
    case MeshAxis::gradient: return with_gradient_index(shape, at, index);
    case MeshAxis::ep: return with_gradient_index(shape, at, place / shape.ep * shape.ep + index);
    case MeshAxis::expert_gradient:
      return with_gradient_index(shape, at, index * shape.ep + place % shape.ep);
    case MeshAxis::sequence:
      at.cp = index / shape.tp;
      at.tp = index % shape.tp;
      return at;
  }
  return at;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += (text.empty() ? "" : "\n") + line;
  return text;
}

}  // namespace

std::string MeshShape::describe() const {
  std::string text = concat("pp ", pp, " x dp ", dp, " x cp ", cp, " x tp ", tp);
  return ep == 1 ? text : text + concat(" with ep ", ep);
}

std::string_view name_of(MeshAxis axis) {
  switch (axis) {
    case MeshAxis::world: return "world";
    case MeshAxis::pp: return "pp";
    case MeshAxis::dp: return "dp";
    case MeshAxis::cp: return "cp";
    case MeshAxis::tp: return "tp";
    case MeshAxis::gradient: return "gradient";
    case MeshAxis::ep: return "ep";
    case MeshAxis::expert_gradient: return "expert_gradient";
    case MeshAxis::sequence: return "sequence";
  }
  return "?";
}

std::vector<std::string> mesh_problems(const MeshShape& shape, int ranks) {
  std::vector<std::string> problems;
  const auto check_size = [&](const char* name, int size) {
    if (size < 1) problems.push_back(concat("parallel.", name, " = ", size, ": give at least 1"));
  };
  check_size("pp", shape.pp);
  check_size("dp", shape.dp);
  check_size("cp", shape.cp);
  check_size("tp", shape.tp);
  check_size("ep", shape.ep);
  if (!problems.empty()) return problems;
  if (shape.ranks() != ranks) {
    const int rest = shape.pp * shape.cp * shape.tp;
    std::string remedy = concat("start ", shape.ranks(), " ranks");
    if (ranks % rest == 0) remedy += concat(" or set parallel.dp = ", ranks / rest);
    problems.push_back(concat(ranks, ranks == 1 ? " rank" : " ranks", " cannot form the mesh ",
                              shape.describe(), " = ", shape.ranks(), ": ", remedy));
  }
  const int experts_over = shape.dp * shape.cp;
  if (experts_over % shape.ep != 0) {
    int nearest = shape.ep;
    while (experts_over % nearest != 0) --nearest;
    problems.push_back(concat("parallel.ep = ", shape.ep, " does not divide dp * cp = ",
                              experts_over, ": set parallel.ep = ", nearest));
  }
  return problems;
}

MeshPosition position_of(const MeshShape& shape, int rank) {
  CHECK(rank >= 0 && rank < shape.ranks(), "rank ", rank, " of mesh ", shape.describe());
  MeshPosition at;
  at.tp = rank % shape.tp;
  rank /= shape.tp;
  at.cp = rank % shape.cp;
  rank /= shape.cp;
  at.dp = rank % shape.dp;
  at.pp = rank / shape.dp;
  return at;
}

int rank_of(const MeshShape& shape, const MeshPosition& at) {
  return ((at.pp * shape.dp + at.dp) * shape.cp + at.cp) * shape.tp + at.tp;
}

int size_of(const MeshShape& shape, MeshAxis axis) {
  switch (axis) {
    case MeshAxis::world: return shape.ranks();
    case MeshAxis::pp: return shape.pp;
    case MeshAxis::dp: return shape.dp;
    case MeshAxis::cp: return shape.cp;
    case MeshAxis::tp: return shape.tp;
    case MeshAxis::gradient: return shape.dp * shape.cp;
    case MeshAxis::ep: return shape.ep;
    case MeshAxis::expert_gradient: return shape.dp * shape.cp / shape.ep;
    case MeshAxis::sequence: return shape.cp * shape.tp;
  }
  return 0;
}

int index_of(const MeshShape& shape, const MeshPosition& at, MeshAxis axis) {
  switch (axis) {
    case MeshAxis::world: return rank_of(shape, at);
    case MeshAxis::pp: return at.pp;
    case MeshAxis::dp: return at.dp;
    case MeshAxis::cp: return at.cp;
    case MeshAxis::tp: return at.tp;
    case MeshAxis::gradient: return gradient_index(shape, at);
    case MeshAxis::ep: return gradient_index(shape, at) % shape.ep;
    case MeshAxis::expert_gradient: return gradient_index(shape, at) / shape.ep;
    case MeshAxis::sequence: return at.cp * shape.tp + at.tp;
  }
  return 0;
}

std::vector<int> members_of(const MeshShape& shape, MeshAxis axis, int rank) {
  const MeshPosition at = position_of(shape, rank);
  std::vector<int> members;
  for (int index = 0; index < size_of(shape, axis); ++index) {
    members.push_back(rank_of(shape, member_at(shape, at, axis, index)));
  }
  return members;
}

Mesh::Mesh(Communicator& world, const MeshShape& shape) : shape_(shape) {
  if (const auto problems = mesh_problems(shape, world.size()); !problems.empty()) {
    throw Error(joined(problems));
  }
  position_ = position_of(shape, world.rank());
  for (int i = 0; i < kMeshAxes; ++i) {
    const auto axis = static_cast<MeshAxis>(i);
    auto& group = groups_[static_cast<std::size_t>(i)];
    if (size_of(shape, axis) == 1) {
      group = make_self_communicator();
      continue;
    }
    const int colour = members_of(shape, axis, world.rank()).front();  // unlike other groups'
    group = world.split_named(colour, name_of(axis));
    CHECK(group->rank() == index_of(shape, position_, axis), "rank ", group->rank(), " of ",
          name_of(axis));
  }
}

}  // namespace convoy
