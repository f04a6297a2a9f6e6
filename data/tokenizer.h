// Tokenizer: text to token ids and back. Every byte string, valid UTF-8 or not, survives
// decode(encode(text)) exactly. Ids are 0 .. vocabulary() - 1.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace convoy {

// All that is needed to build a tokenizer again; token files and checkpoints carry it.
struct TokenizerDescription {
  std::string kind;             // "bytes" or "bpe"
  bool has_end_of_text = true;  // of "bytes": whether id 256 exists
  std::string ranks;            // of "bpe": the lines of a tiktoken file
  std::string expression;       // of "bpe": what cuts text into pieces

  bool operator==(const TokenizerDescription&) const = default;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string name() const = 0;  // "bytes", "bpe:4096"
  virtual int vocabulary() const = 0;
  virtual std::int32_t end_of_text() const = 0;  // -1: the vocabulary has none
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;  // safe on any thread
  virtual std::string_view bytes_of(std::int32_t token) const = 0;  // empty for end-of-text
  virtual TokenizerDescription description() const = 0;

  std::string decode(std::span<const std::int32_t> tokens) const;
  int token_bytes(std::int32_t token) const { return static_cast<int>(bytes_of(token).size()); }
};

std::unique_ptr<Tokenizer> make_tokenizer(const TokenizerDescription& description);

}  // namespace convoy
