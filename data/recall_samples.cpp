#include "data/recall_samples.h"

#include <algorithm>

#include "core/error.h"

namespace convoy {
namespace {

struct Row {
  std::span<std::int32_t> tokens, targets, document_start;
};

Row row_of(Batch& batch, std::int64_t row) {
  CHECK(row >= 0 && row < batch.sequences, "row ", row, " of ", batch.sequences);
  const auto length = static_cast<std::size_t>(batch.length);
  const auto of = [&](std::vector<std::int32_t>& values) {
    return std::span(values).subspan(static_cast<std::size_t>(row) * length, length);
  };
  return {of(batch.tokens), of(batch.targets), of(batch.document_start)};
}

}  // namespace

RecallSamples::RecallSamples(RecallTask task, std::uint64_t seed)
    : task_(std::move(task)), stream_(seed, "recall.train") {}

std::string RecallSamples::name() const {
  return concat("associative recall of ", task_.settings().pairs, " pairs");
}

void RecallSamples::fill(Batch& batch, std::int64_t row, std::int64_t index) const {
  const Row r = row_of(batch, row);
  task_.fill(r.tokens, r.targets, stream_, index);
  std::fill(r.document_start.begin(), r.document_start.end(), 0);
}

RecallValidation::RecallValidation(RecallTask task)
    : task_(std::move(task)), stream_(0, "recall.validation") {
  if (task_.settings().keys == RecallKeys::single) return;
  LastTokenOracle all;
  Batch sample(1, task_.length());
  for (std::int64_t i = 0; i < size(); ++i) {
    fill(sample, 0, i);
    const auto one = last_token_oracle(sample.tokens, sample.targets, task_.settings().vocabulary);
    all.right += one.right;
    all.asked += one.asked;
  }
  last_token_accuracy_ = all.right / static_cast<double>(all.asked);
}

void RecallValidation::fill(Batch& batch, std::int64_t row, std::int64_t window) const {
  const Row r = row_of(batch, row);
  std::fill(r.document_start.begin(), r.document_start.end(), 0);
  if (window < size()) {
    task_.fill(r.tokens, r.targets, stream_, window);
  } else {
    std::fill(r.tokens.begin(), r.tokens.end(), 0);
    std::fill(r.targets.begin(), r.targets.end(), -1);
  }
}

}  // namespace convoy
