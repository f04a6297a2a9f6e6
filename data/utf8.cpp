#include "data/utf8.h"

#include <cstdint>

namespace convoy {
namespace {

constexpr std::uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};  // code point, by length

bool is_code_point(std::uint32_t value) {
  return value <= 0x10ffff && (value < 0xd800 || value > 0xdfff);
}

}  // namespace

std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto first = static_cast<unsigned char>(text[at]);
  if (first < 0x80) return 1;
  const std::size_t length = first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (length == 0 || first > 0xf4 || length > text.size() - at) return 0;
  std::uint32_t code_point = first & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[at + i]);
    if ((byte & 0xc0u) != 0x80u) return 0;
    code_point = code_point << 6 | (byte & 0x3fu);
  }
  return code_point >= kSmallest[length] && is_code_point(code_point) ? length : 0;
}

std::vector<ByteRange> valid_utf8_ranges(std::string_view text) {
  std::vector<ByteRange> ranges;
  ByteRange range;
  while (range.end < text.size()) {
    const std::size_t length = utf8_length(text, range.end);
    range.end += length;
    if (length > 0 && range.end < text.size()) continue;
    if (range.end > range.begin) ranges.push_back(range);
    if (length == 0) range = {range.end + 1, range.end + 1};
  }
  return ranges;
}

}  // namespace convoy
