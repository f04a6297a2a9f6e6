// Where text is valid UTF-8 and where it is not.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace convoy {

// Bytes of the character that starts at `at`, or 0 where none does: a stray or missing
// continuation byte, an overlong form, a surrogate, or a code point above U+10FFFF.
std::size_t utf8_length(std::string_view text, std::size_t at);

struct ByteRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// The longest stretches of valid UTF-8, in order; what lies between them is invalid.
std::vector<ByteRange> valid_utf8_ranges(std::string_view text);

}  // namespace convoy
