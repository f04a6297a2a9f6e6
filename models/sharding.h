// Sharding: what a layer knows about the ranks it shares its work with. tp ranks split channels,
// heads and the vocabulary; cp ranks split each sequence; under sequence parallelism the tp ranks
// also split the rows between the layers. A layer holds communicators and never asks how many ranks
// there are: a group of one is the identity.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/model_config.h"
#include "parallel/mesh.h"
#include "parallel/placement.h"
#include "parallel/row_layout.h"

namespace convoy {

enum class SequenceParallel : bool { no, yes };
// no: what is sent is waited for at once. The bits are the same.
enum class Overlap : bool { no, yes };

// How the rows of the tp ranks are gathered: in at most so many chunks, none smaller than so many
// rows of a rank. The bits of a library matmul may depend on it.
struct GatherChunks {
  std::int64_t most_chunks = 4, least_rows = 64;
};

struct Sharding {
  Communicator& tp;
  Communicator& cp;
  Communicator& sequence;  // cp x tp: all ranks that hold rows of the same sequences
  SequenceParallel sequence_parallel = SequenceParallel::no;
  Overlap overlap = Overlap::yes;
  MeshShape mesh;
  MeshPosition position;
  GatherChunks gather;

  // Whether tp ranks have different rows between the layers.
  bool splits_rows() const { return sequence_parallel == SequenceParallel::yes; }
  int segments() const { return cp.size() > 1 ? 2 : 1; }  // of a sequence on this rank
  // How the T rows of a sequence lie over `cp`, and how those between the layers lie over
  // `row_owners()`.
  RowLayout all_rows(std::int64_t length) const { return {length, cp.size(), 1}; }
  RowLayout own_rows(std::int64_t length) const {
    return {length, cp.size(), splits_rows() ? tp.size() : 1};
  }
  Communicator& row_owners() const { return splits_rows() ? sequence : cp; }
  // Of a parameter that is replicated over tp but sees own rows only.
  LocalGradient gradient_of_own_rows() const {
    return splits_rows() ? LocalGradient::partial_over_tp : LocalGradient::complete;
  }

  Sharding on(Communicator& other_tp, Communicator& other_cp, Communicator& other_sequence) const {
    return {other_tp, other_cp, other_sequence, sequence_parallel, overlap, mesh, position, gather};
  }
};

// `mesh` must outlive whatever is built with it. One tp rank does not split rows.
Sharding sharding_of(const Mesh& mesh, SequenceParallel sequence_parallel,
                     Overlap overlap = Overlap::yes);
// A lone rank.
const Sharding& one_rank();

// The same place among ranks that do not answer: what a layer takes from a measuring arena on a
// NullBackend is what it takes on this rank.
class SilentSharding {
 public:
  explicit SilentSharding(const Sharding& like);
  const Sharding& view() const { return view_; }

 private:
  std::unique_ptr<Communicator> tp_, cp_, sequence_;
  Sharding view_;
};

// Every reason why a model cannot be split in this way, each with its numbers and a remedy.
std::vector<std::string> sharding_problems(const ModelConfig& model, const MeshShape& mesh,
                                           SequenceParallel sequence_parallel);

// What the length of a sequence must be a multiple of.
std::int64_t length_multiple(const MeshShape& mesh, SequenceParallel sequence_parallel);

}  // namespace convoy
