#include "data/token_file.h"

#include <algorithm>
#include <functional>

#include "core/error.h"

namespace convoy {
namespace {

Hdf5File open_token_file(const std::string& path) {
  Hdf5File file(path, Hdf5File::Mode::read);
  if (!file.exists("tokens") || !file.has_attribute("/", "format_version"))
    throw Error(concat(path, " is not a token file; `convoy prepare` makes one from text"));
  const std::int64_t version = file.integer_attribute("/", "format_version");
  if (version != kTokenFileVersion)
    throw Error(concat(path, " is a token file of version ", version, "; this program reads ",
                       kTokenFileVersion, ": prepare it again"));
  return file;
}

template <class Stored>
void read_as(const Hdf5File& file, std::int64_t begin, std::span<std::int32_t> out) {
  std::vector<Stored> stored(out.size());
  file.read_rows("tokens", element_type_of<Stored>(), begin, std::ssize(out), stored.data());
  std::copy(stored.begin(), stored.end(), out.begin());
}

}  // namespace

TokenFile::TokenFile(const std::string& path, std::int64_t memory_limit)
    : file_(open_token_file(path)) {
  const DatasetInfo info = file_.info("tokens");
  type_ = info.type;
  tokens_ = info.elements();
  bytes_ = file_.integer_attribute("/", "bytes");
  vocabulary_ = static_cast<int>(file_.integer_attribute("/", "vocabulary"));
  end_of_text_ = static_cast<std::int32_t>(file_.integer_attribute("/", "end_of_text"));
  tokenizer_name_ = file_.string_attribute("/", "tokenizer");
  source_sha256_ = file_.string_attribute("/", "source_sha256");
  document_starts_ = file_.read<std::int64_t>("document_starts");
  token_bytes_ = file_.read<std::uint16_t>("token_bytes");
  in_memory_ = tokens_ * static_cast<std::int64_t>(size_of(type_)) < memory_limit;
  if (in_memory_) load_tokens();
  require_sound();
}

void TokenFile::load_tokens() {
  if (type_ == ElementType::u16)
    narrow_ = file_.read<std::uint16_t>("tokens");
  else
    wide_ = file_.read<std::uint32_t>("tokens");
}

void TokenFile::require_sound() const {
  const auto require = [this](bool sound, std::string_view what) {
    if (!sound) throw Error(concat(path(), " is damaged: ", what, "; prepare it again"));
  };
  require(type_ == ElementType::u16 || type_ == ElementType::u32, "tokens are neither u16 nor u32");
  require(std::ssize(token_bytes_) == vocabulary_, "token_bytes does not fit the vocabulary");
  require(!document_starts_.empty() && document_starts_.front() == 0 &&
              document_starts_.back() < tokens_ &&
              std::adjacent_find(document_starts_.begin(), document_starts_.end(),
                                 std::greater_equal<>{}) == document_starts_.end(),
          "document_starts is not ascending from 0");
  const auto known = [this](std::uint32_t token) {
    return token < static_cast<std::uint32_t>(vocabulary_);
  };
  require(std::all_of(narrow_.begin(), narrow_.end(), known) &&
              std::all_of(wide_.begin(), wide_.end(), known),
          "a token is outside the vocabulary");
}

TokenizerDescription TokenFile::tokenizer_description() const {
  TokenizerDescription description;
  description.kind = file_.string_attribute("tokenizer", "kind");
  description.has_end_of_text = file_.integer_attribute("tokenizer", "has_end_of_text") != 0;
  description.expression = file_.string_attribute("tokenizer", "expression");
  const auto ranks = file_.read<std::uint8_t>("tokenizer/ranks");
  description.ranks.assign(ranks.begin(), ranks.end());
  return description;
}

void TokenFile::read(std::int64_t begin, std::span<std::int32_t> out) const {
  CHECK(begin >= 0 && begin <= tokens_ - std::ssize(out), "tokens ", begin, " to ",
        begin + std::ssize(out), " of ", path(), ", which has ", tokens_);
  const bool narrow = type_ == ElementType::u16;
  if (in_memory_ && narrow)
    std::copy_n(narrow_.begin() + begin, out.size(), out.begin());
  else if (in_memory_)
    std::copy_n(wide_.begin() + begin, out.size(), out.begin());
  else if (narrow)
    read_as<std::uint16_t>(file_, begin, out);
  else
    read_as<std::uint32_t>(file_, begin, out);
}

}  // namespace convoy
