// StageWeights: where one stage's weights are, when the ranks that share them divide them.
//   ZeRO 0     every rank has and updates all of them
//   ZeRO 1, 2  every rank has all, updates its own part, and then gets the others' (publish)
//   ZeRO 3     every rank has its own part; a stage gathers all of its weights before it runs and
//              drops them after it, as actions of the schedule say
#pragma once

#include <vector>

#include "core/backend.h"
#include "launch/own_range.h"
#include "parallel/communicator.h"

namespace convoy {

// Memory for gathered weights, shared by the stages of a rank; each piece holds any of them.
class GatherPool {
 public:
  GatherPool(Backend& backend, DType dtype, std::int64_t elements, int count);
  Tensor take();  // an error where all are in use
  void give_back(const Tensor& piece) { free_.push_back(piece); }

 private:
  std::vector<OwnedTensor> memory_;
  std::vector<Tensor> free_;
};

class StageWeights {
 public:
  // After store.allocate(), with values unless zero = 3. `group`: the ranks that share the stage.
  StageWeights(Backend& backend, ParameterStore& store, Communicator& group, int zero);

  // Elements of the value buffer that this rank updates: its part of a bucket, and where it is.
  const OwnRange& range() const { return range_; }
  Tensor own(std::size_t bucket) const;
  Tensor own_masters(std::size_t bucket) const;  // the same in f32; empty where none are kept

  void initialize(std::uint64_t seed);
  // After the own parts have changed: all ranks have all weights again. Collective, but for ZeRO 0
  // and 3, where there is nothing to do.
  void publish();

  // ZeRO 3. A gather starts and returns; ready() waits for it, and must come before weights are
  // read.
  void gather(GatherPool& pool);
  void ready();
  void release(GatherPool& pool);

 private:
  void gather_into(std::size_t bucket, const Tensor& full);
  void wait_all();

  Backend& backend_;
  ParameterStore& store_;
  Communicator& group_;
  int zero_;
  OwnRange range_;
  OwnedTensor own_;          // this rank's parts, where zero > 0
  OwnedTensor own_masters_;  // their masters in f32, where they are bf16
  Tensor gathered_;
  std::vector<Work> works_;
};

}  // namespace convoy
