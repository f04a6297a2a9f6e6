#include "launch/gradient_sums.h"

#include <algorithm>

namespace convoy {

bool GradientSums::wants_gradient_buffer(const GradientSumOptions& options) {
  return options.mode == NumericsMode::fast && options.zero < 2;
}

void GradientSums::make_totals() {
  const OwnRange range = options_.range();
  std::int64_t elements = 0;
  for (const auto& bucket : store_.buckets()) {
    elements = std::max(elements, range.gradient_place(bucket) + range.size(bucket));
  }
  total_memory_ = OwnedTensor(backend_, store_.gradient_dtype(), {elements});
  for (const auto& bucket : store_.buckets()) {
    totals_.push_back(
        flat_range(total_memory_.view(), range.gradient_place(bucket), range.size(bucket)));
  }
}

Work GradientSums::started(Work work) const {
  if (options_.overlap == Overlap::no) work.wait();
  return work;
}

void GradientSums::finish() {
  for (std::size_t bucket = 0; bucket < store_.buckets().size(); ++bucket) finish_bucket(bucket);
}

namespace {

// Gradients of all micro-batches are added in one buffer and summed over ranks once.
class BufferedSums final : public GradientSums {
 public:
  BufferedSums(Backend& backend, ParameterStore& store, Communicator& group,
               const GradientSumOptions& options)
      : GradientSums(backend, store, group, options),
        added_(store.buckets().size()),
        works_(store.buckets().size()) {
    if (options.zero > 0) {
      make_totals();
      return;
    }
    for (std::size_t i = 0; i < store.buckets().size(); ++i) {
      totals_.push_back(store.bucket_gradients(i));
    }
  }

  void begin_step() override {
    store_.zero_gradients();
    std::fill(added_.begin(), added_.end(), 0);
  }

  void begin(std::size_t) override { group_.progress(); }

  void end(std::size_t bucket) override {
    if (++added_[bucket] < options_.count()) return;
    const Tensor sum = store_.bucket_gradients(bucket);
    works_[bucket] = started(options_.zero == 0 ? group_.all_reduce(sum, Reduction::sum)
                                                : group_.reduce_scatter(totals_[bucket], sum));
  }

 private:
  void finish_bucket(std::size_t bucket) override {
    CHECK(added_[bucket] == options_.count(), "bucket ", bucket, " has the gradients of ",
          added_[bucket], " of ", options_.count(), " micro-batches");
    works_[bucket].wait();
  }

  std::vector<std::int64_t> added_;  // micro-batches, by bucket
  std::vector<Work> works_;
};

// Every micro-batch's gradients leave a bucket of memory as soon as they are complete; each rank
// adds up its part of them.
class ScatteredSums final : public GradientSums {
 public:
  ScatteredSums(Backend& backend, ParameterStore& store, Communicator& group,
                const GradientSumOptions& options)
      : GradientSums(backend, store, group, options) {
    make_totals();
    std::int64_t largest = 0;
    for (const auto& bucket : store.buckets()) largest = std::max(largest, bucket.size);
    for (auto& lane : lanes_) {
      lane.full = OwnedTensor(backend, store.gradient_dtype(), {largest});
      lane.part = OwnedTensor(backend, store.gradient_dtype(), {largest / group.size()});
    }
  }

  void begin_step() override { backend_.fill(total_memory_.view(), 0); }

  void begin(std::size_t bucket) override {
    group_.progress();
    Lane& lane = lanes_[next_];
    collect(lane);
    lane.bucket = bucket;
    backend_.fill(full(lane), 0);
    store_.bind_gradients(bucket, full(lane));
  }

  void end(std::size_t bucket) override {
    Lane& lane = lanes_[next_];
    CHECK(lane.bucket == bucket, "bucket ", bucket, " ends inside of another");
    lane.work = started(group_.reduce_scatter(part(lane), full(lane)));
    lane.in_flight = true;
    next_ = (next_ + 1) % lanes_.size();
  }

 private:
  struct Lane {
    OwnedTensor full, part;
    Work work;
    std::size_t bucket = 0;
    bool in_flight = false;
  };

  Tensor full(const Lane& lane) const {
    return flat_range(lane.full.view(), 0, store_.buckets()[lane.bucket].size);
  }
  Tensor part(const Lane& lane) const {
    return flat_range(lane.part.view(), 0, totals_[lane.bucket].size());
  }
  void collect(Lane& lane) {
    if (!lane.in_flight) return;
    lane.work.wait();
    backend_.add(totals_[lane.bucket], totals_[lane.bucket], part(lane));
    lane.in_flight = false;
  }
  // In the order in which they were sent, so that sums have one order.
  void finish_bucket(std::size_t) override {
    for (std::size_t i = 0; i < lanes_.size(); ++i) {
      collect(lanes_[(next_ + i) % lanes_.size()]);
    }
  }

  std::vector<Lane> lanes_ = std::vector<Lane>(2);
  std::size_t next_ = 0;
};

}  // namespace

std::unique_ptr<GradientSums> make_gradient_sums(Backend& backend, ParameterStore& store,
                                                 Communicator& group,
                                                 const GradientSumOptions& options) {
  if (options.mode == NumericsMode::invariant) {
    return make_tree_gradient_sums(backend, store, group, options);
  }
  if (options.zero < 2) return std::make_unique<BufferedSums>(backend, store, group, options);
  return std::make_unique<ScatteredSums>(backend, store, group, options);
}

}  // namespace convoy
