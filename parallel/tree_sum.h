// The sum of per-micro-batch values as a fixed binary tree over the *global* micro-batch index, so
// that its bits do not depend on which rank computed which micro-batch, nor when. A node covers the
// aligned range [begin, begin + size) of indices, size a power of two; two nodes merge when they
// are the halves of an aligned range. What is left when the number of micro-batches is no power of
// two is folded from the right. Micro-batches may come in any order; in ascending order at most
// log2(m) + 2 buffers are alive.
#pragma once

#include <map>
#include <vector>

#include "core/memory.h"
#include "parallel/communicator.h"

namespace convoy {

struct MicroBatchRange {
  std::int64_t begin, end;
  friend bool operator==(const MicroBatchRange&, const MicroBatchRange&) = default;
};

// The aligned ranges, each as long as possible, that make up a range: the nodes of the tree that
// whoever has these micro-batches can form alone.
std::vector<MicroBatchRange> aligned_ranges(MicroBatchRange range);

class TreeSum {
 public:
  TreeSum(Backend& backend, DType dtype, std::int64_t elements);

  // A zeroed buffer for the values of micro-batch `index`, to be written until it is added.
  Tensor begin(std::int64_t index);
  void end(std::int64_t index);

  // Each rank's part of the sum: elements [r * n, (r + 1) * n) of it into `out` [n] of rank r,
  // n = elements / ranks. owners[r] says which micro-batches rank r has added; ranks with equal
  // ranges have shares of the same values, which are added first, in order of rank. Starts afresh
  // for the next step. Collective: start posts the messages, finish waits for them, as does
  // wait alone.
  void start(Communicator& ranks, const std::vector<MicroBatchRange>& owners);
  void wait() { exchange_.wait(); }
  void finish(const Tensor& out);

 private:
  using Nodes = std::map<std::int64_t, std::pair<std::int64_t, Tensor>>;  // begin: size, values
  struct Arrival {
    MicroBatchRange range;
    Tensor part;
  };

  Tensor take_buffer();
  Tensor take_part(std::int64_t size);
  void merge(std::int64_t begin);
  void give_back_all();

  Backend& backend_;
  DType dtype_;
  std::int64_t elements_;
  std::vector<OwnedTensor> buffers_, part_buffers_;
  std::vector<Tensor> free_;
  std::size_t parts_used_ = 0;
  Tensor open_;  // between begin and end
  std::int64_t open_index_ = -1;
  Nodes nodes_;
  std::vector<Arrival> arrivals_;
  Work exchange_;
};

}  // namespace convoy
