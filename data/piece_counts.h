// How often each distinct piece occurs in a text: all that training needs to know of it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/pre_tokenizer.h"

namespace convoy {

using PieceCount = std::pair<std::string, std::int64_t>;

// Longer pieces (data without spaces) are counted in parts of this many bytes, which bounds what
// one merge costs.
inline constexpr std::size_t kLongestCountedPiece = 1024;

// In ascending order of the pieces, whatever the number of threads.
std::vector<PieceCount> count_pieces(const PreTokenizer& pre_tokenizer,
                                     std::span<const std::string_view> documents, int threads);

}  // namespace convoy
