#include "data/byte_tokenizer.h"

#include <cstddef>

namespace convoy {

ByteTokenizer::ByteTokenizer(EndOfText end_of_text)
    : has_end_of_text_(end_of_text == EndOfText::yes) {
  for (std::size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i);
}

std::vector<std::int32_t> ByteTokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> tokens(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
  return tokens;
}

std::string_view ByteTokenizer::bytes_of(std::int32_t token) const {
  if (token < 0 || token > 255) return {};
  return {&bytes_[static_cast<std::size_t>(token)], 1};
}

TokenizerDescription ByteTokenizer::description() const {
  return {.kind = "bytes", .has_end_of_text = has_end_of_text_, .ranks = {}, .expression = {}};
}

}  // namespace convoy
