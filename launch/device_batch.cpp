#include "launch/device_batch.h"

#include <algorithm>

#include "core/backend.h"
#include "core/conv_shape.h"

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

DeviceBatch::DeviceBatch(Backend& backend, std::int64_t sequences, std::int64_t length)
    : backend_(backend),
      tokens_(backend, DType::i32, {sequences * length}),
      targets_(backend, DType::i32, {sequences * length}),
      positions_(backend, DType::i32, {sequences * length}),
      document_start_(backend, DType::i32, {sequences * length}),
      reach_(backend, DType::i32, {sequences * length}),
      view_{sequences,         length,
            tokens_.view(),    targets_.view(),
            positions_.view(), document_start_.view(),
            reach_.view()} {
  std::vector<std::int32_t> positions(static_cast<std::size_t>(view_.rows()));
  for (std::size_t i = 0; i < positions.size(); ++i) {
    positions[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % length);
  }
  copy_to(backend_, positions_, positions);
}

const BatchView& DeviceBatch::load(const Batch& batch) {
  CHECK(batch.sequences == view_.sequences && batch.length == view_.length, "a batch of ",
        batch.sequences, " x ", batch.length, " for one of ", view_.sequences, " x ", view_.length);
  std::vector<std::int32_t> reach(batch.document_start.size());
  view_.one_document = std::all_of(batch.document_start.begin(), batch.document_start.end(),
                                   [](std::int32_t start) { return start == 0; });
  for (std::size_t i = 0; i < reach.size(); ++i) {
    const auto position = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % view_.length);
    reach[i] = std::min(position - batch.document_start[i], kMaxConvWidth - 1);
  }
  copy_to(backend_, tokens_, batch.tokens);
  copy_to(backend_, targets_, batch.targets);
  copy_to(backend_, document_start_, batch.document_start);
  copy_to(backend_, reach_, reach);
  return view_;
}

}  // namespace convoy
