// zb-h1: 1f1b with the backward pass split. A rank starts its weight gradients `rank` micro-batches
// late, so that its activations stay as many as on rank 0 of 1f1b, and the weight gradients left
// over fill what would be the bubble at the end.
#include <algorithm>

#include "parallel/schedule/generate.h"

namespace convoy {

ActionLists generate_zb_h1(const PipelineShape& shape) {
  const int m = shape.micro_batches;
  ActionLists lists;
  for (int rank = 0; rank < shape.ranks; ++rank) {
    const int warm_up = std::min(shape.ranks - 1 - rank, m);
    std::vector<Action> list;
    int weights = 0;  // next weight gradient
    for (int i = 0; i < warm_up; ++i) list.push_back({Op::forward, rank, i});
    for (int i = 0; i < m; ++i) {
      const bool draining = i + warm_up >= m;
      if (!draining) list.push_back({Op::forward, rank, i + warm_up});
      list.push_back({Op::backward_input, rank, i});
      if (draining || i >= rank) list.push_back({Op::backward_weight, rank, weights++});
    }
    while (weights < m) list.push_back({Op::backward_weight, rank, weights++});
    lists.push_back(std::move(list));
  }
  return lists;
}

}  // namespace convoy
