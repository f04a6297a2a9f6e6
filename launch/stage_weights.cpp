#include "launch/stage_weights.h"

namespace convoy {

GatherPool::GatherPool(Backend& backend, DType dtype, std::int64_t elements, int count) {
  for (int i = 0; i < count; ++i) {
    memory_.emplace_back(backend, dtype, std::initializer_list<std::int64_t>{elements});
    free_.push_back(memory_.back().view());
  }
}

Tensor GatherPool::take() {
  CHECK(!free_.empty(), "all ", memory_.size(),
        " pieces of memory for gathered weights are in use");
  const Tensor piece = free_.back();
  free_.pop_back();
  return piece;
}

StageWeights::StageWeights(Backend& backend, ParameterStore& store, Communicator& group, int zero)
    : backend_(backend),
      store_(store),
      group_(group),
      zero_(zero),
      range_(zero == 0 ? OwnRange{} : OwnRange{group.size(), group.rank()}) {
  if (zero == 0) return;
  const std::int64_t elements = store.extent() / range_.parts;
  own_ = OwnedTensor(backend, store.dtype(), {elements});
  if (store.dtype() == DType::bf16) own_masters_ = OwnedTensor(backend, DType::f32, {elements});
}

Tensor StageWeights::own(std::size_t bucket) const {
  const Bucket& range = store_.buckets()[bucket];
  CHECK(!range.second, "bucket ", bucket, " has no weights of its own");
  if (zero_ == 0) return store_.bucket_values(bucket);
  return flat_range(own_.view(), range_.place(range), range_.size(range));
}

Tensor StageWeights::own_masters(std::size_t bucket) const {
  if (zero_ == 0) return store_.bucket_masters(bucket);
  if (own_masters_.view().empty()) return {};
  const Bucket& range = store_.buckets()[bucket];
  return flat_range(own_masters_.view(), range_.place(range), range_.size(range));
}

void StageWeights::initialize(std::uint64_t seed) {
  for (std::size_t i = 0; i < store_.buckets().size(); ++i) {
    if (store_.buckets()[i].second) continue;
    const Tensor values = own(i), masters = own_masters(i);
    store_.initial_values(seed, range_.begin(store_.buckets()[i]),
                          masters.empty() ? values : masters);
    if (!masters.empty()) backend_.convert(values, masters);
  }
  publish();
}

void StageWeights::gather_into(std::size_t bucket, const Tensor& full) {
  works_.push_back(group_.all_gather(full, own(bucket)));
}

void StageWeights::wait_all() {
  for (auto& work : works_) work.wait();
  works_.clear();
}

void StageWeights::publish() {
  if (zero_ != 1 && zero_ != 2) return;
  for (std::size_t i = 0; i < store_.buckets().size(); ++i) {
    if (!store_.buckets()[i].second) gather_into(i, store_.bucket_values(i));
  }
  wait_all();
}

void StageWeights::gather(GatherPool& pool) {
  CHECK(zero_ == 3 && gathered_.empty(), "weights are gathered that are there");
  gathered_ = pool.take();
  for (std::size_t i = 0; i < store_.buckets().size(); ++i) {
    const Bucket& bucket = store_.buckets()[i];
    if (bucket.second) continue;
    const Tensor full = flat_range(gathered_, bucket.begin, bucket.size);
    store_.bind_values(i, full);
    gather_into(i, full);
  }
}

void StageWeights::ready() {
  CHECK(zero_ < 3 || !gathered_.empty(), "weights are used that were not gathered");
  wait_all();
}

void StageWeights::release(GatherPool& pool) {
  CHECK(!gathered_.empty(), "weights are released that were not gathered");
  wait_all();
  pool.give_back(gathered_);
  gathered_ = {};
}

}  // namespace convoy
