#include "launch/device_batch.h"

#include <algorithm>

#include "core/backend.h"
#include "core/flat_range.h"

namespace convoy {
namespace {

void copy_to(Backend& backend, const Tensor& target, const std::vector<std::int32_t>& host) {
  const auto size = static_cast<std::int64_t>(host.size());
  CHECK(target.size() == size, size, " values for ", target.describe());
  // The copy only reads the host's values.
  auto* data = const_cast<std::int32_t*>(host.data());
  backend.copy(target, Tensor(data, DType::i32, DeviceKind::cpu, {size}));
}

// The first of the places that there are, for so many values.
Tensor filled_part(Backend& backend, const OwnedTensor& places,
                   const std::vector<std::int32_t>& host) {
  const auto size = static_cast<std::int64_t>(host.size());
  const Tensor all = places.view();
  CHECK(size <= all.size(), size, " labels in a batch, and room for ", all.size());
  const Tensor part = flat_range(all, 0, size);
  if (size > 0) copy_to(backend, part, host);
  return part;
}

}  // namespace

DeviceBatch::DeviceBatch(Backend& backend, std::int64_t sequences, std::int64_t length,
                         const Sharding& sharding)
    : DeviceBatch(backend, sequences, length, sharding, length) {}

DeviceBatch::DeviceBatch(Backend& backend, std::int64_t sequences, std::int64_t length,
                         const Sharding& sharding, std::int64_t labels_of_window)
    : backend_(backend), sharding_(sharding), sequences_(sequences), length_(length) {
  const std::int64_t all = sharding.all_rows(length).rows(), own = sharding.own_rows(length).rows();
  for (OwnedTensor* tensor : {&tokens_, &targets_, &positions_, &document_start_, &reach_}) {
    *tensor = OwnedTensor(backend, DType::i32, {sequences * all});
  }
  own_reach_ = OwnedTensor(backend, DType::i32, {sequences * own});
  view_ = {sequences,         all,
           tokens_.view(),    targets_.view(),
           positions_.view(), document_start_.view(),
           reach_.view(),     own_reach_.view()};
  if (labels_of_window >= length) return;
  const std::int64_t most = sequences * std::min(labels_of_window, all);
  label_rows_ = OwnedTensor(backend, DType::i32, {most});
  label_targets_ = OwnedTensor(backend, DType::i32, {most});
  label_place_ = OwnedTensor(backend, DType::i32, {sequences * all});
}

const BatchView& DeviceBatch::load(const Batch& batch) {
  CHECK(batch.sequences == sequences_ && batch.length == length_, "a batch of ", batch.sequences,
        " x ", batch.length, " for one of ", sequences_, " x ", length_);
  const bool is_first = rows_.tokens.empty();
  fill_rows(rows_, {sequences_, length_, batch.tokens, batch.targets, batch.document_start},
            sharding_);
  copy_to(backend_, tokens_.view(), rows_.tokens);
  copy_to(backend_, targets_.view(), rows_.targets);
  if (is_first)
    copy_to(backend_, positions_.view(), rows_.positions);  // they are the same in all batches
  copy_to(backend_, document_start_.view(), rows_.document_start);
  copy_to(backend_, reach_.view(), rows_.reach);
  copy_to(backend_, own_reach_.view(), rows_.own_reach);
  if (!label_place_.view().empty()) load_labels();
  view_.one_document = std::all_of(batch.document_start.begin(), batch.document_start.end(),
                                   [](std::int32_t start) { return start == 0; });
  return view_;
}

void DeviceBatch::load_labels() {
  fill_labels(labels_, rows_.targets);
  copy_to(backend_, label_place_.view(), labels_.place);
  view_.labels = {filled_part(backend_, label_rows_, labels_.rows),
                  filled_part(backend_, label_targets_, labels_.targets), label_place_.view()};
}

}  // namespace convoy
