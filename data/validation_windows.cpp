#include "data/validation_windows.h"

#include "core/error.h"

namespace convoy {

ValidationWindows::ValidationWindows(const TokenFile& file, std::int64_t seq_len, Pack pack)
    : file_(file), seq_len_(seq_len), pack_(pack) {
  CHECK(seq_len > 0, "seq_len is ", seq_len);
  if (file.tokens() < 2)
    throw Error(concat(file.path(), " has one token: there is nothing to predict in it"));
}

void ValidationWindows::fill(Batch& batch, std::int64_t row, std::int64_t window) const {
  CHECK(batch.length == seq_len_, "a batch of length ", batch.length, ", not ", seq_len_);
  fill_window(batch, row, file_, window * seq_len_, pack_);
}

ValidationWindows::Counted ValidationWindows::counted(std::int64_t window) const {
  Batch batch(1, seq_len_);
  fill(batch, 0, window);
  Counted result;
  for (const std::int32_t target : batch.targets) {
    if (target < 0) continue;
    ++result.targets;
    result.bytes += file_.token_bytes(target);
  }
  return result;
}

}  // namespace convoy
