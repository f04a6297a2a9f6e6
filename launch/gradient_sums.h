// GradientSums: the sum of one stage's weight gradients over the micro-batches of a step and over
// the ranks that share the stage's parameters. It gives each bucket memory to add to while a
// micro-batch's backward pass runs, and as soon as the last one is through with a bucket, the sum
// over ranks starts, under the rest of the backward pass.
//
//   mode       zero  memory for gradients         sum over ranks, once a step
//   fast       0     all                          all-reduce
//   fast       1     all, and an own part         reduce-scatter
//   fast       2, 3  two buckets, and an own part reduce-scatter after every micro-batch
//   invariant  any   the nodes of a tree          the tree over global micro-batches, by parts
#pragma once

#include <memory>
#include <vector>

#include "core/backend.h"
#include "launch/own_range.h"
#include "models/transformer_stage.h"
#include "parallel/communicator.h"
#include "parallel/tree_sum.h"

namespace convoy {

struct GradientSumOptions {
  NumericsMode mode = NumericsMode::fast;
  int zero = 0;
  int rank = 0;                                // in the group
  std::vector<MicroBatchRange> micro_batches;  // of each rank of the group
  Overlap overlap = Overlap::yes;

  MicroBatchRange own() const { return micro_batches[static_cast<std::size_t>(rank)]; }
  std::int64_t count() const { return own().end - own().begin; }
  // Of the sum of which this rank holds a part after finish().
  OwnRange range() const {
    const int ranks = static_cast<int>(micro_batches.size());
    return zero == 0 ? OwnRange{} : OwnRange{ranks, rank};
  }
};

class GradientSums : public GradientHooks {
 public:
  // What allocate() of the store must make.
  static bool wants_gradient_buffer(const GradientSumOptions& options);

  virtual void begin_step() = 0;
  // The micro-batch, counted from the rank's first, whose gradients follow.
  void visit(std::int64_t micro_batch) { micro_batch_ = micro_batch; }
  void finish();  // waits for all sums

  // After finish(): this rank's part of a bucket's sum, [OwnRange::size]. It stays where it is.
  Tensor total(std::size_t bucket) const { return totals_[bucket]; }

 protected:
  GradientSums(Backend& backend, ParameterStore& store, Communicator& group,
               const GradientSumOptions& options)
      : backend_(backend), store_(store), group_(group), options_(options) {}
  virtual void finish_bucket(std::size_t bucket) = 0;
  void make_totals();  // own memory for them
  // A sum over ranks that has begun: it travels under what follows, or is waited for.
  Work started(Work work) const;

  Backend& backend_;
  ParameterStore& store_;
  Communicator& group_;
  GradientSumOptions options_;
  std::int64_t micro_batch_ = 0;
  OwnedTensor total_memory_;
  std::vector<Tensor> totals_;  // [bucket]
};

// After store.allocate(). `group`: the ranks that share the stage's parameters.
std::unique_ptr<GradientSums> make_gradient_sums(Backend& backend, ParameterStore& store,
                                                 Communicator& group,
                                                 const GradientSumOptions& options);
std::unique_ptr<GradientSums> make_tree_gradient_sums(Backend& backend, ParameterStore& store,
                                                      Communicator& group,
                                                      const GradientSumOptions& options);

}  // namespace convoy
