#include "parallel/tree_sum.h"

#include "core/backend.h"

namespace convoy {

// A node as other ranks know it.
struct TreeSum::Extent {
  std::int64_t begin, size;
  int owner;
};

TreeSum::TreeSum(Backend& backend, DType dtype, std::int64_t elements)
    : backend_(backend), dtype_(dtype), elements_(elements) {}

Tensor TreeSum::take_buffer() {
  if (free_.empty()) {
    buffers_.emplace_back(backend_, dtype_, std::initializer_list<std::int64_t>{elements_});
    return buffers_.back().view();
  }
  const Tensor buffer = free_.back();
  free_.pop_back();
  return buffer;
}

Tensor TreeSum::next(std::int64_t index) {
  merge_tail();
  const Tensor buffer = take_buffer();
  backend_.fill(buffer, 0);
  nodes_.push_back({index, 1, buffer});
  return buffer;
}

void TreeSum::merge_tail() {
  while (nodes_.size() >= 2) {
    const Node& right = nodes_.back();
    Node& left = nodes_[nodes_.size() - 2];
    const bool halves = left.size == right.size && left.begin % (2 * left.size) == 0 &&
                        right.begin == left.begin + left.size;
    if (!halves) return;
    backend_.add(left.values, left.values, right.values);
    left.size *= 2;
    free_.push_back(right.values);
    nodes_.pop_back();
  }
}

void TreeSum::push(Node node) {
  nodes_.push_back(node);
  merge_tail();
}

// Every rank's nodes, ordered by their place in the tree. Ranks own ascending ranges of indices.
std::vector<TreeSum::Extent> TreeSum::extents_of_all(Communicator& ranks) const {
  constexpr std::int64_t kMost = 128;  // more than 2 log2 of any number of micro-batches
  std::vector<std::int32_t> mine(1 + 2 * kMost, 0);
  CHECK(std::int64_t(nodes_.size()) <= kMost, nodes_.size(), " nodes on one rank");
  mine[0] = static_cast<std::int32_t>(nodes_.size());
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    mine[1 + 2 * i] = static_cast<std::int32_t>(nodes_[i].begin);
    mine[2 + 2 * i] = static_cast<std::int32_t>(nodes_[i].size);
  }
  std::vector<std::int32_t> all(mine.size() * static_cast<std::size_t>(ranks.size()));
  const auto view = [](std::vector<std::int32_t>& v) {
    return Tensor(v.data(), DType::i32, DeviceKind::cpu, {static_cast<std::int64_t>(v.size())});
  };
  ranks.all_gather(view(all), view(mine)).wait();
  std::vector<Extent> extents;
  for (int owner = 0; owner < ranks.size(); ++owner) {
    const std::int32_t* theirs = all.data() + static_cast<std::size_t>(owner) * mine.size();
    for (std::int32_t i = 0; i < theirs[0]; ++i) {
      extents.push_back({theirs[1 + 2 * i], theirs[2 + 2 * i], owner});
    }
  }
  return extents;
}

void TreeSum::finish(Tensor total, Communicator& ranks) {
  merge_tail();
  const std::vector<Extent> extents = extents_of_all(ranks);
  const std::vector<Node> mine = std::move(nodes_);
  nodes_.clear();
  std::size_t own = 0;
  for (const Extent& extent : extents) {
    const bool is_mine = extent.owner == ranks.rank();
    const Tensor values = is_mine ? mine[own++].values : take_buffer();
    ranks.broadcast(values, extent.owner).wait();
    push({extent.begin, extent.size, values});
  }
  CHECK(!nodes_.empty(), "a step without micro-batches");
  while (nodes_.size() > 1) {  // fold what no power of two covers
    const Tensor right = nodes_.back().values;
    nodes_.pop_back();
    backend_.add(nodes_.back().values, nodes_.back().values, right);
    free_.push_back(right);
  }
  backend_.copy(total, nodes_.back().values);
  free_.push_back(nodes_.back().values);
  nodes_.clear();
}

}  // namespace convoy
