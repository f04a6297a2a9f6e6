#include "parallel/placement.h"

#include <algorithm>

namespace convoy {
namespace {

std::int64_t divided_up(std::int64_t n, std::int64_t by) { return (n + by - 1) / by; }

std::string described(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const auto dim : shape) text += (text.empty() ? "[" : ", ") + std::to_string(dim);
  return text + "]";
}

}  // namespace

std::optional<std::string> placement_problem(const std::string& name, const Placement& placement,
                                             const MeshShape& mesh) {
  if (!placement.split) return std::nullopt;
  const Split& split = *placement.split;
  const auto place = concat("dim ", split.dim, " of ", name, ' ', described(placement.shape));
  if (split.dim < 0 || split.dim >= std::ssize(placement.shape)) {
    return concat("there is no ", place, ": split one of its dims");
  }
  const std::int64_t rows = placement.shape[static_cast<std::size_t>(split.dim)];
  if (split.sections < 1 || rows % split.sections != 0) {
    return concat(place, " is not ", split.sections,
                  " equal sections: join matrices of equal size, or split them one by one");
  }
  const std::int64_t section = rows / split.sections, parts = size_of(mesh, split.axis);
  if (split.padding == Padding::allowed || section % parts == 0) return std::nullopt;
  const auto axis = name_of(split.axis);
  std::int64_t fitting = std::min(parts, section);
  while (section % fitting != 0) --fitting;
  return concat(place, " has ", section, split.sections > 1 ? " rows in a section" : " rows",
                ", which ", axis, " = ", parts, " does not divide: set parallel.", axis, " = ",
                fitting, ", or a size that is a multiple of ", parts);
}

Shard::Shard(Placement placement, const MeshShape& mesh, const MeshPosition& position)
    : placement_(std::move(placement)), shape_(placement_.shape) {
  if (const auto problem = placement_problem("a parameter", placement_, mesh)) {
    throw Error(*problem);
  }
  if (placement_.split) {
    const Split& split = *placement_.split;
    auto& rows = shape_[static_cast<std::size_t>(split.dim)];
    section_ = rows / split.sections;
    parts_ = size_of(mesh, split.axis);
    part_ = divided_up(section_, parts_);
    index_ = index_of(mesh, position, split.axis);
    rows = split.sections * part_;
  }
  for (const auto dim : shape_) size_ *= dim;
}

std::optional<std::int64_t> Shard::global_row_of(std::int64_t local_row) const {
  if (!placement_.split) return local_row;
  const std::int64_t within = index_ * part_ + local_row % part_;
  if (within >= section_) return std::nullopt;
  return local_row / part_ * section_ + within;
}

std::optional<std::int64_t> Shard::global_index_of(std::int64_t local) const {
  CHECK(local >= 0 && local < size_, "element ", local, " of a shard of ", size_);
  if (!placement_.split) return local;
  const auto dim = static_cast<std::size_t>(placement_.split->dim);
  std::int64_t inner = 1;  // elements of one row of the split dim
  for (std::size_t d = dim + 1; d < shape_.size(); ++d) inner *= shape_[d];
  const std::int64_t row = local / inner % shape_[dim], outer = local / inner / shape_[dim];
  const auto global_row = global_row_of(row);
  if (!global_row) return std::nullopt;
  return (outer * placement_.shape[dim] + *global_row) * inner + local % inner;
}

std::vector<ShardBlock> Shard::blocks() const {
  const std::vector<std::int64_t> origin(shape_.size(), 0);
  if (!placement_.split) return {{origin, origin, shape_}};
  const auto dim = static_cast<std::size_t>(placement_.split->dim);
  const std::int64_t begin = index_ * part_;
  const std::int64_t count = std::clamp<std::int64_t>(section_ - begin, 0, part_);
  std::vector<ShardBlock> blocks;
  for (std::int64_t s = 0; count > 0 && s < placement_.split->sections; ++s) {
    ShardBlock block{origin, origin, shape_};
    block.global_begin[dim] = s * section_ + begin;
    block.local_begin[dim] = s * part_;
    block.count[dim] = count;
    blocks.push_back(std::move(block));
  }
  return blocks;
}

}  // namespace convoy
