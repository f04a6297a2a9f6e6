// Gradients in invariant mode: one tree a bucket over the global micro-batches.
#include "launch/gradient_sums.h"

namespace convoy {
namespace {

class TreeGradientSums final : public GradientSums {
 public:
  TreeGradientSums(Backend& backend, ParameterStore& store, Communicator& group,
                   const GradientSumOptions& options)
      : GradientSums(backend, store, group, options), added_(store.buckets().size()) {
    make_totals();
    for (const auto& bucket : store.buckets()) {
      trees_.emplace_back(backend, store.gradient_dtype(), bucket.size);
    }
  }

  void begin_step() override {
    waited_ = 0;
    std::fill(added_.begin(), added_.end(), 0);
  }

  void begin(std::size_t bucket) override {
    store_.bind_gradients(bucket, trees_[bucket].begin(global_index()));
  }

  void end(std::size_t bucket) override {
    trees_[bucket].end(global_index());
    if (++added_[bucket] == options_.count()) {
      trees_[bucket].start(group_, options_.micro_batches);
    }
  }

 private:
  std::int64_t global_index() const { return options_.own().begin + micro_batch_; }

  // Each rank folds the part that it keeps; where each keeps all, the parts are put together.
  void finish_bucket(std::size_t bucket) override {
    const Stopwatch watch;
    const Tensor& total = totals_[bucket];
    if (options_.zero > 0 || group_.size() == 1) {
      trees_[bucket].finish(total);
    } else {
      const OwnRange part{group_.size(), group_.rank()};
      const std::int64_t count = total.size() / part.parts;
      if (part_memory_.view().size() < count) {
        part_memory_ = OwnedTensor(backend_, total.dtype(), {count});
      }
      const Tensor own = flat_range(part_memory_.view(), 0, count);
      trees_[bucket].finish(own);
      group_.all_gather(total, own).wait();
    }
    waited_ += watch.seconds();
  }

  std::vector<TreeSum> trees_;
  std::vector<std::int64_t> added_;
  OwnedTensor part_memory_;
};

}  // namespace

std::unique_ptr<GradientSums> make_tree_gradient_sums(Backend& backend, ParameterStore& store,
                                                      Communicator& group,
                                                      const GradientSumOptions& options) {
  return std::make_unique<TreeGradientSums>(backend, store, group, options);
}

}  // namespace convoy
