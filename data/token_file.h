// Token files: a tokenised corpus in HDF5, with all that training, evaluation and sampling need to
// know of it. Layout, version 1 (n tokens, d documents, V vocabulary):
//   tokens           u16 [n], u32 where V > 65536; chunked
//   document_starts  i64 [d]  index of each document's first token, ascending from 0
//   token_bytes      u16 [V]  bytes that a token decodes to; 0 for end-of-text
//   tokenizer        group: attributes kind, has_end_of_text, expression; dataset ranks u8
//   attributes       format_version, tokenizer, vocabulary, end_of_text (-1: none), bytes (of the
//                    text that the tokens decode to), source_sha256 (of the input files in a row)
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/hdf5.h"
#include "data/tokenizer.h"

namespace convoy {

inline constexpr std::int64_t kTokenFileVersion = 1;

class TokenFile {
 public:
  // Takes the tokens into memory where they are fewer than `memory_limit` bytes.
  explicit TokenFile(const std::string& path, std::int64_t memory_limit = std::int64_t{1} << 30);

  const std::string& path() const { return file_.path(); }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t bytes() const { return bytes_; }
  int vocabulary() const { return vocabulary_; }
  std::int32_t end_of_text() const { return end_of_text_; }
  const std::string& tokenizer_name() const { return tokenizer_name_; }
  const std::string& source_sha256() const { return source_sha256_; }

  std::span<const std::int64_t> document_starts() const { return document_starts_; }
  int token_bytes(std::int32_t token) const {
    return token_bytes_[static_cast<std::size_t>(token)];
  }

  TokenizerDescription tokenizer_description() const;
  std::unique_ptr<Tokenizer> tokenizer() const { return make_tokenizer(tokenizer_description()); }

  // The tokens [begin, begin + out.size()); from any thread.
  void read(std::int64_t begin, std::span<std::int32_t> out) const;

 private:
  void load_tokens();
  void require_sound() const;

  Hdf5File file_;
  ElementType type_;
  std::int64_t tokens_ = 0;
  std::int64_t bytes_ = 0;
  int vocabulary_ = 0;
  std::int32_t end_of_text_ = -1;
  std::string tokenizer_name_, source_sha256_;
  std::vector<std::int64_t> document_starts_;
  std::vector<std::uint16_t> token_bytes_;
  bool in_memory_ = false;
  std::vector<std::uint16_t> narrow_;  // the tokens, where in memory and u16
  std::vector<std::uint32_t> wide_;    // the tokens, where in memory and u32
};

}  // namespace convoy
