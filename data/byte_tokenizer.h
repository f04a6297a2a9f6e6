// ByteTokenizer: a token is a byte; id 256 is end-of-text, unless the vocabulary goes without.
#pragma once

#include <array>

#include "data/tokenizer.h"

namespace convoy {

enum class EndOfText : bool { no, yes };

class ByteTokenizer : public Tokenizer {
 public:
  explicit ByteTokenizer(EndOfText end_of_text = EndOfText::yes);

  std::string name() const override { return "bytes"; }
  int vocabulary() const override { return has_end_of_text_ ? 257 : 256; }
  std::int32_t end_of_text() const override { return has_end_of_text_ ? 256 : -1; }
  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::string_view bytes_of(std::int32_t token) const override;
  TokenizerDescription description() const override;

 private:
  bool has_end_of_text_;
  std::array<char, 256> bytes_;  // every byte once: what bytes_of points into
};

}  // namespace convoy
