// Placement: how a parameter lies over the mesh, by its *global* shape. From it follow a rank's
// local shape, the global index of each local element (so that counter-based initial values need
// no communication), and the blocks that a checkpoint reads and writes.
//
// A split dim is cut into equal parts, one for each rank of an axis. Where several matrices are
// joined along that dim (gate and up), each of these sections is cut by itself: with two ranks
// and two sections, rank 0 holds the first half of each. Where the parts would be unequal (an odd
// vocabulary) each section is padded to a multiple of the parts; padding has no global index.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "parallel/mesh.h"

namespace convoy {

enum class Padding : std::uint8_t { refused, allowed };

// What a rank has of its parameter's gradient after the backward passes of a step.
enum class LocalGradient : std::uint8_t {
  complete,         // all of it, but for the sum over the gradient group
  partial_over_tp,  // a share: replicated over tp, to be all-reduced over it once per step
};

struct Split {
  int dim;
  MeshAxis axis;
  std::int64_t sections = 1;
  Padding padding = Padding::refused;
};

struct Placement {
  std::vector<std::int64_t> shape;  // global, without padding
  std::optional<Split> split = {};
  LocalGradient gradient = LocalGradient::complete;
};

// What is wrong with splitting `name` in this way over this many ranks, with a remedy.
std::optional<std::string> placement_problem(const std::string& name, const Placement& placement,
                                             const MeshShape& mesh);

// A contiguous part of a parameter: `count` elements in each dim.
struct ShardBlock {
  std::vector<std::int64_t> global_begin, local_begin, count;
};

// One rank's part of a parameter.
class Shard {
 public:
  Shard(Placement placement, const MeshShape& mesh, const MeshPosition& position);

  const std::vector<std::int64_t>& shape() const { return shape_; }  // local, padding included
  std::int64_t size() const { return size_; }                        // elements of it
  int parts() const { return parts_; }  // that the parameter is split in; 1: it is whole
  int index() const { return static_cast<int>(index_); }  // of this part

  // Row-major index into the global shape of a row-major local element; none for padding.
  std::optional<std::int64_t> global_index_of(std::int64_t local) const;
  // The same along the split dim alone.
  std::optional<std::int64_t> global_row_of(std::int64_t local_row) const;
  // All that is not padding, a block for each section: the hyperslabs of a checkpoint.
  std::vector<ShardBlock> blocks() const;

 private:
  Placement placement_;
  std::vector<std::int64_t> shape_;
  std::int64_t size_ = 1;
  int parts_ = 1;
  std::int64_t section_ = 0;  // global rows of a section; of the whole dim where nothing is split
  std::int64_t part_ = 0;     // local rows of a section
  std::int64_t index_ = 0;    // of this rank along the axis
};

}  // namespace convoy
