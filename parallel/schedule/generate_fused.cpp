// Schedules whose backward pass is one action: gpipe, 1f1b, interleaved 1f1b.
#include <algorithm>

#include "parallel/schedule/generate.h"

namespace convoy {
namespace {

// `warm_up` forward passes, then one forward, one backward while there are forwards, then the rest.
std::vector<Action> alternate(const std::vector<Action>& forwards,
                              const std::vector<Action>& backwards, int warm_up) {
  std::vector<Action> list;
  list.reserve(forwards.size() + backwards.size());
  auto next_backward = backwards.begin();
  for (std::size_t i = 0; i < forwards.size(); ++i) {
    list.push_back(forwards[i]);
    if (i >= static_cast<std::size_t>(warm_up)) list.push_back(*next_backward++);
  }
  list.insert(list.end(), next_backward, backwards.end());
  return list;
}

std::vector<Action> in_order(Op op, int stage, int micro_batches) {
  std::vector<Action> list;
  for (int i = 0; i < micro_batches; ++i) list.push_back({op, stage, i});
  return list;
}

enum class Direction : std::uint8_t { down, up };

// Micro-batches in groups of `ranks`; a group passes through all virtual stages of the rank before
// the next one starts. A last group that is not full is planned as if it were, and what does not
// exist is left out: the order of the rest is still one that cannot deadlock.
std::vector<Action> in_groups(const PipelineShape& shape, int rank, Op op, Direction direction) {
  std::vector<Action> list;
  for (int first = 0; first < shape.micro_batches; first += shape.ranks) {
    for (int i = 0; i < shape.virtual_stages; ++i) {
      const int chunk = direction == Direction::down ? i : shape.virtual_stages - 1 - i;
      for (int j = first; j < first + shape.ranks; ++j) {
        list.push_back({op, chunk * shape.ranks + rank, j});
      }
    }
  }
  return list;
}

}  // namespace

ActionLists generate_gpipe(const PipelineShape& shape) {
  ActionLists lists;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    lists.push_back(alternate(in_order(Op::forward, rank, shape.micro_batches),
                              in_order(Op::backward, rank, shape.micro_batches),
                              shape.micro_batches));
  }
  return lists;
}

// A rank holds as many micro-batches as there are ranks from it to the end of the pipeline.
ActionLists generate_1f1b(const PipelineShape& shape) {
  ActionLists lists;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    lists.push_back(alternate(in_order(Op::forward, rank, shape.micro_batches),
                              in_order(Op::backward, rank, shape.micro_batches),
                              shape.ranks - 1 - rank));
  }
  return lists;
}

// Before its first backward pass a rank runs all but the last virtual stage for a whole group, and
// two forward passes for each rank after it: one on the way down, one while the gradient comes up.
ActionLists generate_interleaved(const PipelineShape& shape) {
  ActionLists lists;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    const auto forwards = in_groups(shape, rank, Op::forward, Direction::down);
    const auto backwards = in_groups(shape, rank, Op::backward, Direction::up);
    const int warm_up = (shape.virtual_stages - 1) * shape.ranks + 2 * (shape.ranks - 1 - rank);
    std::vector<Action> list = alternate(forwards, backwards, warm_up);
    std::erase_if(list, [&](const Action& a) { return a.micro_batch >= shape.micro_batches; });
    lists.push_back(std::move(list));
  }
  return lists;
}

}  // namespace convoy
