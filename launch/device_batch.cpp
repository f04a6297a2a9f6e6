#include "launch/device_batch.h"

#include <algorithm>

#include "core/backend.h"

namespace convoy {
namespace {

void copy_to(Backend& backend, const OwnedTensor& target, const std::vector<std::int32_t>& host) {
  const auto size = static_cast<std::int64_t>(host.size());
  CHECK(target.view().size() == size, size, " values for ", target.view().describe());
  // The copy only reads the host's values.
  auto* data = const_cast<std::int32_t*>(host.data());
  backend.copy(target.view(), Tensor(data, DType::i32, DeviceKind::cpu, {size}));
}

}  // namespace

DeviceBatch::DeviceBatch(Backend& backend, std::int64_t sequences, std::int64_t length,
                         const Sharding& sharding)
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
}

const BatchView& DeviceBatch::load(const Batch& batch) {
  CHECK(batch.sequences == sequences_ && batch.length == length_, "a batch of ", batch.sequences,
        " x ", batch.length, " for one of ", sequences_, " x ", length_);
  const bool is_first = rows_.tokens.empty();
  fill_rows(rows_, {sequences_, length_, batch.tokens, batch.targets, batch.document_start},
            sharding_);
  copy_to(backend_, tokens_, rows_.tokens);
  copy_to(backend_, targets_, rows_.targets);
  if (is_first) copy_to(backend_, positions_, rows_.positions);  // they are the same in all batches
  copy_to(backend_, document_start_, rows_.document_start);
  copy_to(backend_, reach_, rows_.reach);
  copy_to(backend_, own_reach_, rows_.own_reach);
  view_.one_document = std::all_of(batch.document_start.begin(), batch.document_start.end(),
                                   [](std::int32_t start) { return start == 0; });
  return view_;
}

}  // namespace convoy
