// TokenFileWriter: writes a token file as documents arrive. The file takes its name only in
// finish(); a writer destroyed before leaves nothing behind.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/hdf5.h"
#include "data/tokenizer.h"

namespace convoy {

class TokenFileWriter {
 public:
  TokenFileWriter(std::string path, const Tokenizer& tokenizer);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  // `tokens` of one document, with its end-of-text where it has one; not empty.
  void add_document(std::span<const std::int32_t> tokens);

  void finish(const std::string& source_sha256);

  std::int64_t tokens() const { return tokens_; }
  std::int64_t bytes() const { return bytes_; }  // that the tokens decode to
  std::int64_t documents() const { return std::ssize(document_starts_); }

 private:
  void write_tokenizer(const Tokenizer& tokenizer);
  void write_pending();

  std::string path_, temporary_;
  Hdf5File file_;
  ElementType type_;
  std::vector<std::uint16_t> token_bytes_;
  std::vector<std::int64_t> document_starts_;
  std::vector<std::int32_t> pending_;  // not yet in the file: less than a chunk
  std::int64_t tokens_ = 0;
  std::int64_t bytes_ = 0;
};

}  // namespace convoy
