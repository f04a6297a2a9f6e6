#include "data/token_file_writer.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <utility>

#include "core/error.h"
#include "data/text_file.h"
#include "data/token_file.h"

namespace convoy {
namespace {

constexpr std::int64_t kChunkTokens = 1 << 18;
constexpr int kMostNarrowTokens = 1 << 16;

std::vector<std::uint16_t> bytes_by_token(const Tokenizer& tokenizer) {
  std::vector<std::uint16_t> bytes;
  for (std::int32_t token = 0; token < tokenizer.vocabulary(); ++token) {
    const int count = tokenizer.token_bytes(token);
    if (count > std::numeric_limits<std::uint16_t>::max())
      throw Error(concat("token ", token, " of ", tokenizer.name(), " stands for ", count,
                         " bytes; a token file allows 65535 at most"));
    bytes.push_back(static_cast<std::uint16_t>(count));
  }
  return bytes;
}

}  // namespace

TokenFileWriter::TokenFileWriter(std::string path, const Tokenizer& tokenizer)
    : path_(std::move(path)),
      temporary_(temporary_name(path_)),
      file_(temporary_, Hdf5File::Mode::create),
      type_(tokenizer.vocabulary() > kMostNarrowTokens ? ElementType::u32 : ElementType::u16),
      token_bytes_(bytes_by_token(tokenizer)) {
  const std::int64_t none = 0;
  file_.create_dataset("tokens", type_, {&none, 1}, kChunkTokens);
  file_.set_attribute("/", "format_version", kTokenFileVersion);
  write_tokenizer(tokenizer);
}

TokenFileWriter::~TokenFileWriter() {
  std::error_code ignored;  // after finish() there is no such file
  std::filesystem::remove(temporary_, ignored);
}

void TokenFileWriter::write_tokenizer(const Tokenizer& tokenizer) {
  const TokenizerDescription description = tokenizer.description();
  file_.write("tokenizer/ranks",
              std::vector<std::uint8_t>(description.ranks.begin(), description.ranks.end()));
  file_.set_attribute("tokenizer", "kind", description.kind);
  file_.set_attribute("tokenizer", "has_end_of_text",
                      static_cast<std::int64_t>(description.has_end_of_text));
  file_.set_attribute("tokenizer", "expression", description.expression);
  file_.set_attribute("/", "tokenizer", tokenizer.name());
  file_.set_attribute("/", "vocabulary", static_cast<std::int64_t>(tokenizer.vocabulary()));
  file_.set_attribute("/", "end_of_text", static_cast<std::int64_t>(tokenizer.end_of_text()));
  file_.write("token_bytes", token_bytes_);
}

void TokenFileWriter::add_document(std::span<const std::int32_t> tokens) {
  CHECK(!tokens.empty(), "a document without tokens, in ", path_);
  document_starts_.push_back(tokens_);
  pending_.insert(pending_.end(), tokens.begin(), tokens.end());
  tokens_ += std::ssize(tokens);
  for (const std::int32_t token : tokens) bytes_ += token_bytes_[static_cast<std::size_t>(token)];
  if (std::ssize(pending_) >= kChunkTokens) write_pending();
}

void TokenFileWriter::write_pending() {
  const std::int64_t count = std::ssize(pending_);
  if (type_ == ElementType::u16) {
    std::vector<std::uint16_t> narrow(pending_.size());
    std::transform(pending_.begin(), pending_.end(), narrow.begin(),
                   [](std::int32_t token) { return static_cast<std::uint16_t>(token); });
    file_.append_rows("tokens", type_, count, narrow.data());
  } else {
    file_.append_rows("tokens", type_, count, pending_.data());  // ids are never negative
  }
  pending_.clear();
}

void TokenFileWriter::finish(const std::string& source_sha256) {
  write_pending();
  file_.write("document_starts", document_starts_);
  file_.set_attribute("/", "bytes", bytes_);
  file_.set_attribute("/", "source_sha256", source_sha256);
  file_.close();
  std::filesystem::rename(temporary_, path_);
}

}  // namespace convoy
