#include "parallel/tree_sum.h"

#include <algorithm>

#include "core/backend.h"

namespace convoy {

std::vector<MicroBatchRange> aligned_ranges(MicroBatchRange range) {
  std::vector<MicroBatchRange> ranges;
  for (std::int64_t begin = range.begin; begin < range.end;) {
    std::int64_t size = 1;
    while (begin % (2 * size) == 0 && begin + 2 * size <= range.end) size *= 2;
    ranges.push_back({begin, begin + size});
    begin += size;
  }
  return ranges;
}

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

Tensor TreeSum::take_part(std::int64_t size) {
  if (parts_used_ == part_buffers_.size()) {
    part_buffers_.emplace_back(backend_, dtype_, std::initializer_list<std::int64_t>{size});
  }
  return part_buffers_[parts_used_++].view();
}

Tensor TreeSum::begin(std::int64_t index) {
  CHECK(open_index_ < 0, "micro-batch ", index, " begins inside of ", open_index_);
  open_index_ = index;
  open_ = take_buffer();
  backend_.fill(open_, 0);
  return open_;
}

void TreeSum::end(std::int64_t index) {
  CHECK(open_index_ == index, "micro-batch ", index, " ends inside of ", open_index_);
  open_index_ = -1;
  const bool is_new = nodes_.emplace(index, std::pair(std::int64_t{1}, open_)).second;
  CHECK(is_new, "micro-batch ", index, " is added twice");
  merge(index);
}

// Merges the node that begins here with its other half as long as there is one.
void TreeSum::merge(std::int64_t begin) {
  while (true) {
    const std::int64_t size = nodes_.at(begin).first;
    const bool is_left = begin % (2 * size) == 0;
    const std::int64_t left = is_left ? begin : begin - size, right = left + size;
    const auto other = nodes_.find(is_left ? right : left);
    if (other == nodes_.end() || other->second.first != size) return;
    const Tensor sum = nodes_.at(left).second, part = nodes_.at(right).second;
    backend_.add(sum, sum, part);
    free_.push_back(part);
    nodes_.erase(right);
    nodes_.at(left).first = 2 * size;
    begin = left;
  }
}

void TreeSum::start(Communicator& ranks, const std::vector<MicroBatchRange>& owners) {
  const std::int64_t size = elements_ / ranks.size();
  CHECK(size * ranks.size() == elements_, elements_, " elements for ", ranks.size(), " ranks");
  CHECK(std::ssize(owners) == ranks.size(), owners.size(), " owners on ", ranks.size(), " ranks");
  std::vector<Transfer> transfers;
  const auto part_of = [&](const Tensor& values, std::int64_t rank) {
    return values.reshape({elements_, 1}).row_range(rank * size, size).reshape({size});
  };
  for (int r = 0; r < ranks.size(); ++r) {
    for (const auto& range : aligned_ranges(owners[static_cast<std::size_t>(r)])) {
      if (r != ranks.rank()) {
        arrivals_.push_back({range, take_part(size)});
        transfers.push_back({Transfer::Kind::receive, arrivals_.back().part, r});
        continue;
      }
      const auto node = nodes_.find(range.begin);
      CHECK(node != nodes_.end() && node->second.first == range.end - range.begin, "micro-batches ",
            range.begin, " to ", range.end - 1, " are not all added");
      arrivals_.push_back({range, part_of(node->second.second, r)});
      for (int peer = 0; peer < ranks.size(); ++peer) {
        if (peer == r) continue;
        transfers.push_back({Transfer::Kind::send, part_of(node->second.second, peer), peer});
      }
    }
  }
  exchange_ = ranks.exchange(transfers);
}

void TreeSum::finish(const Tensor& out) {
  exchange_.wait();
  // Shares of one range lie in order of rank, and stay so.
  std::stable_sort(arrivals_.begin(), arrivals_.end(), [](const Arrival& a, const Arrival& b) {
    return a.range.begin < b.range.begin;
  });
  std::vector<Arrival> open;
  const auto fold_last = [&] {
    const Tensor part = open.back().part;
    const std::int64_t end = open.back().range.end;
    open.pop_back();
    backend_.add(open.back().part, open.back().part, part);
    open.back().range.end = end;
  };
  const auto last_are_halves = [&] {
    if (open.size() < 2) return false;
    const auto &left = open[open.size() - 2].range, &right = open.back().range;
    const std::int64_t size = right.end - right.begin;
    return left.end - left.begin == size && left.end == right.begin && left.begin % (2 * size) == 0;
  };
  for (std::size_t i = 0; i < arrivals_.size(); ++i) {
    Arrival arrival = arrivals_[i];
    for (; i + 1 < arrivals_.size() && arrivals_[i + 1].range == arrival.range; ++i) {
      backend_.add(arrival.part, arrival.part, arrivals_[i + 1].part);
    }
    open.push_back(arrival);
    while (last_are_halves()) fold_last();
  }
  CHECK(!open.empty(), "a step without micro-batches");
  while (open.size() > 1) fold_last();  // what no power of two covers
  backend_.copy(out, open.front().part);
  give_back_all();
}

void TreeSum::give_back_all() {
  for (const auto& [begin, node] : nodes_) free_.push_back(node.second);
  nodes_.clear();
  arrivals_.clear();
  parts_used_ = 0;
}

}  // namespace convoy
