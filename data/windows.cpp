#include "data/windows.h"

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace convoy {
namespace {

// The starts of documents in the tokens (begin, end].
std::span<const std::int64_t> starts_within(const TokenFile& file, std::int64_t begin,
                                            std::int64_t end) {
  const auto starts = file.document_starts();
  const auto first = std::upper_bound(starts.begin(), starts.end(), begin);
  const auto last = std::upper_bound(first, starts.end(), end);
  return {first, last};
}

// Positions of a window that predict a token of the file.
std::int64_t targets_left(const TokenFile& file, std::int64_t begin, std::int64_t length) {
  return std::clamp<std::int64_t>(file.tokens() - 1 - begin, 0, length);
}

}  // namespace

Pack parse_pack(std::string_view text) {
  if (text == "documents") return Pack::documents;
  if (text == "stream") return Pack::stream;
  throw Error(concat("data.pack = '", text, "'; it is \"documents\" or \"stream\""));
}

void fill_window(Batch& batch, std::int64_t row, const TokenFile& file, std::int64_t begin,
                 Pack pack) {
  CHECK(row >= 0 && row < batch.sequences, "row ", row, " of ", batch.sequences);
  const auto length = static_cast<std::size_t>(batch.length);
  const auto offset = static_cast<std::size_t>(row) * length;
  const std::span tokens = std::span(batch.tokens).subspan(offset, length);
  const std::span targets = std::span(batch.targets).subspan(offset, length);
  const std::span document_start = std::span(batch.document_start).subspan(offset, length);

  const std::int64_t counted = targets_left(file, begin, batch.length);
  std::vector<std::int32_t> window(length + 1, 0);
  if (counted > 0) file.read(begin, std::span(window).first(static_cast<std::size_t>(counted) + 1));
  std::copy_n(window.begin(), length, tokens.begin());
  std::copy(window.begin() + 1, window.end(), targets.begin());
  std::fill(targets.begin() + counted, targets.end(), -1);
  std::fill(document_start.begin(), document_start.end(), 0);
  if (pack == Pack::stream) return;
  for (const std::int64_t start : starts_within(file, begin, begin + counted)) {
    const std::int64_t position = start - begin;  // 1 .. T
    targets[static_cast<std::size_t>(position) - 1] = -1;
    std::fill(document_start.begin() + position, document_start.end(),
              static_cast<std::int32_t>(position));
  }
}

std::int64_t counted_targets(const TokenFile& file, std::int64_t begin, std::int64_t length,
                             Pack pack) {
  const std::int64_t targets = targets_left(file, begin, length);
  if (pack == Pack::stream) return targets;
  return targets - std::ssize(starts_within(file, begin, begin + targets));
}

}  // namespace convoy
