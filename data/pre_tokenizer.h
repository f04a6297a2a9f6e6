// PreTokenizer: cuts text into the pieces (roughly words) that byte-pair merges never cross.
//
// The cut is defined byte by byte, so that any input has exactly one. Stretches of valid UTF-8 are
// searched by a regular expression (PCRE2, Unicode classes): each match is a piece, and so is the
// text between two matches. A byte that is not valid UTF-8 is a piece of its own. The end of a
// piece depends on its start and the text alone, which lets threads start anywhere and agree.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;  // PCRE2's compiled expression; its header stays in pre_tokenizer.cpp

namespace convoy {

// The expression of OpenAI's cl100k_base encoding, what files without an expression of their own
// are taken to mean: contractions, words with the character before them, up to three digits,
// punctuation, ends of lines, white space.
extern const std::string_view kDefaultExpression;

class PreTokenizer {
 public:
  explicit PreTokenizer(std::string expression);

  const std::string& expression() const { return expression_; }

  // The ends of all pieces of `text`, ascending; the last is text.size().
  std::vector<std::size_t> piece_ends(std::string_view text, int threads = 1) const;

 private:
  friend class PieceScanner;
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::string expression_;
  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace convoy
