// Windows: a token stream cut into T + 1 tokens at stride T, so that every token but the first is
// a target once. With Pack::documents, attention and convolutions stop at document starts and a
// target that begins a document is masked; with Pack::stream documents run into one another.
// End-of-text belongs to the document that it closes, so predicting it counts.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "data/batch.h"
#include "data/token_file.h"

namespace convoy {

enum class Pack : std::uint8_t { documents, stream };

Pack parse_pack(std::string_view text);  // "documents" or "stream"

// Fills one row with the window that starts at token `begin`. Where fewer than T + 1 tokens are
// left, the rest of the row is padding: token 0, target -1.
void fill_window(Batch& batch, std::int64_t row, const TokenFile& file, std::int64_t begin,
                 Pack pack);

// Targets that fill_window leaves unmasked, without reading a token.
std::int64_t counted_targets(const TokenFile& file, std::int64_t begin, std::int64_t length,
                             Pack pack);

}  // namespace convoy
