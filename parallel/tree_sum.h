// The sum of per-micro-batch values as a fixed binary tree over the *global* micro-batch index, so
// that its bits do not depend on which rank computed which micro-batch. A node covers the aligned
// range [begin, begin + size) of indices, size a power of two; two nodes merge when they are the
// halves of an aligned range. What is left when the number of micro-batches is no power of two is
// folded from the right. At most 2 log2(m) + 1 buffers are alive.
#pragma once

#include <memory>
#include <vector>

#include "core/memory.h"
#include "parallel/communicator.h"

namespace convoy {

class TreeSum {
 public:
  TreeSum(Backend& backend, DType dtype, std::int64_t elements);

  // A zeroed buffer for the values of micro-batch `index`; indices must ascend. Merges what the
  // previous micro-batch completed.
  Tensor next(std::int64_t index);
  // The whole sum, on every rank, into `total`; starts afresh for the next step.
  void finish(Tensor total, Communicator& ranks);

 private:
  struct Node {
    std::int64_t begin, size;
    Tensor values;
  };
  struct Extent;

  Tensor take_buffer();
  void push(Node node);
  void merge_tail();
  std::vector<Extent> extents_of_all(Communicator& ranks) const;

  Backend& backend_;
  DType dtype_;
  std::int64_t elements_;
  std::vector<OwnedTensor> buffers_;
  std::vector<Tensor> free_;
  std::vector<Node> nodes_;
};

}  // namespace convoy
