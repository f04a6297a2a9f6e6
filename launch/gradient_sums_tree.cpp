// Gradients in invariant mode: one tree a bucket over the global micro-batches. A bucket's sum
// takes two messages: the nodes of its tree go to the ranks that fold a part of them, and, where
// every rank keeps all, the folded parts go to all. The second starts when the bucket after it is
// complete: by then the first has had time to arrive.
#include "launch/gradient_sums.h"

namespace convoy {
namespace {

class TreeGradientSums final : public GradientSums {
 public:
  TreeGradientSums(Backend& backend, ParameterStore& store, Communicator& group,
                   const GradientSumOptions& options)
      : GradientSums(backend, store, group, options),
        added_(store.buckets().size()),
        works_(store.buckets().size()) {
    make_totals();
    for (const auto& bucket : store.buckets()) {
      trees_.emplace_back(backend, store.gradient_dtype(), bucket.size);
    }
  }

  void begin_step() override {
    std::fill(added_.begin(), added_.end(), 0);
    complete_.clear();
    folded_ = 0;
  }

  void begin(std::size_t bucket) override {
    group_.progress();
    store_.bind_gradients(bucket, trees_[bucket].begin(global_index()));
  }

  void end(std::size_t bucket) override {
    trees_[bucket].end(global_index());
    if (++added_[bucket] < options_.count()) return;
    trees_[bucket].start(group_, options_.micro_batches);
    complete_.push_back(bucket);
    fold_first(options_.overlap == Overlap::no ? complete_.size() : complete_.size() - 1);
  }

 private:
  std::int64_t global_index() const { return options_.own().begin + micro_batch_; }

  // Of the complete buckets the first `count`, in the order that all ranks have.
  void fold_first(std::size_t count) {
    for (; folded_ < count; ++folded_) fold(complete_[folded_]);
  }

  // Each rank folds the part that it keeps; where each keeps all, the parts are put together.
  void fold(std::size_t bucket) {
    const Tensor& total = totals_[bucket];
    trees_[bucket].wait();
    if (options_.zero > 0 || group_.size() == 1) return trees_[bucket].finish(total);
    const Tensor own = OwnRange{group_.size(), group_.rank()}.of(total);
    trees_[bucket].finish(own);
    works_[bucket] = started(group_.all_gather(total, own));
  }

  void finish_bucket(std::size_t bucket) override {
    fold_first(complete_.size());
    works_[bucket].wait();
  }

  std::vector<TreeSum> trees_;
  std::vector<std::int64_t> added_;
  std::vector<Work> works_;            // of the second message, by bucket
  std::vector<std::size_t> complete_;  // buckets with all own micro-batches, in order of time
  std::size_t folded_ = 0;             // how many of them are folded
};

}  // namespace

std::unique_ptr<GradientSums> make_tree_gradient_sums(Backend& backend, ParameterStore& store,
                                                      Communicator& group,
                                                      const GradientSumOptions& options) {
  return std::make_unique<TreeGradientSums>(backend, store, group, options);
}

}  // namespace convoy
