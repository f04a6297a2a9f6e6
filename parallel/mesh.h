// The mesh: where a rank stands. world = pp * dp * cp * tp ranks, tp innermost, so that the axis
// with the most traffic joins neighbours. Who belongs to which group is a pure function of the
// sizes, tested without any launcher; Mesh only turns those groups into communicators.
//
// Experts live on a folded mesh: the dp * cp ranks that share a (pp, tp) are ep groups of
// neighbours, and each expert's gradient is summed over the (dp * cp) / ep ranks that hold it.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/communicator.h"

namespace convoy {

struct MeshShape {
  int pp = 1, dp = 1, cp = 1, tp = 1;
  int ep = 1;  // divides dp * cp; takes no ranks of its own

  int ranks() const { return pp * dp * cp * tp; }
  std::string describe() const;  // "pp 2 x dp 1 x cp 1 x tp 4"
  bool operator==(const MeshShape&) const = default;
};

struct MeshPosition {
  int pp = 0, dp = 0, cp = 0, tp = 0;
  bool operator==(const MeshPosition&) const = default;
};

// The axes, and the groups made of more than one of them.
enum class MeshAxis : std::uint8_t {
  world,
  pp,
  dp,
  cp,
  tp,
  gradient,         // dp * cp: the gradients of all parameters but the experts' are summed over it
  ep,               // holds the different experts
  expert_gradient,  // (dp * cp) / ep: holds the same experts
  sequence,         // cp * tp: share the rows of each sequence
};
inline constexpr int kMeshAxes = 9;
std::string_view name_of(MeshAxis axis);

// What is wrong with a mesh for this many ranks, each with a remedy; empty where nothing is.
std::vector<std::string> mesh_problems(const MeshShape& shape, int ranks);

MeshPosition position_of(const MeshShape& shape, int rank);
int rank_of(const MeshShape& shape, const MeshPosition& at);
int size_of(const MeshShape& shape, MeshAxis axis);
// The place of a rank within its group of an axis.
int index_of(const MeshShape& shape, const MeshPosition& at, MeshAxis axis);
// The ranks of the group that `rank` belongs to, ascending, which is also the order of index_of.
std::vector<int> members_of(const MeshShape& shape, MeshAxis axis, int rank);

class Mesh {
 public:
  // Collective over `world`, which must outlive the mesh. Throws what mesh_problems says. Each
  // group carries the name of its axis; groups of one rank are the identity.
  Mesh(Communicator& world, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  const MeshPosition& position() const { return position_; }
  Communicator& on(MeshAxis axis) const { return *groups_[static_cast<std::size_t>(axis)]; }

  Communicator& world() const { return on(MeshAxis::world); }
  Communicator& pp() const { return on(MeshAxis::pp); }
  Communicator& dp() const { return on(MeshAxis::dp); }
  Communicator& cp() const { return on(MeshAxis::cp); }
  Communicator& tp() const { return on(MeshAxis::tp); }
  Communicator& gradient() const { return on(MeshAxis::gradient); }
  Communicator& ep() const { return on(MeshAxis::ep); }
  Communicator& expert_gradient() const { return on(MeshAxis::expert_gradient); }
  Communicator& sequence() const { return on(MeshAxis::sequence); }

 private:
  MeshShape shape_;
  MeshPosition position_;
  std::array<std::unique_ptr<Communicator>, kMeshAxes> groups_;
};

}  // namespace convoy
