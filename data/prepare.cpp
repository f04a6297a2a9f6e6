#include "data/prepare.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/sha256.h"
#include "data/parallel_for.h"
#include "data/text_file.h"
#include "data/token_file_writer.h"
#include "data/tokenizer_choice.h"

namespace convoy {
namespace {

constexpr std::size_t kBytesPerGroup = std::size_t{16} << 20;

std::vector<std::string> read_inputs(const PrepareOptions& options) {
  if (options.inputs.empty()) throw Error("there is nothing to prepare; name files with --input");
  if (options.output.empty()) throw Error("no output file; name one with --output");
  std::vector<std::string> texts;
  for (const std::string& input : options.inputs) {
    texts.push_back(read_text_file(input));
    if (texts.back().empty()) throw Error(concat(input, " is empty; leave it out"));
  }
  return texts;
}

std::string sum_of(const std::vector<std::string>& texts) {
  Sha256 sum;
  for (const std::string& text : texts) sum.update(text);
  return sum.hex();
}

// Views into `texts`.
std::vector<std::string_view> split(const std::vector<std::string>& texts,
                                    std::optional<char> separator) {
  if (!separator) return {texts.begin(), texts.end()};
  std::vector<std::string_view> documents;
  bool found = false;
  for (std::string_view text : texts)
    while (!text.empty()) {
      const std::size_t end = std::min(text.find(*separator), text.size());
      found = found || end < text.size();
      if (end > 0) documents.push_back(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
  const int byte = static_cast<unsigned char>(*separator);
  if (!found) throw Error(concat("the separator, byte ", byte, ", occurs in none of the inputs"));
  if (documents.empty()) throw Error(concat("the inputs hold only separators, byte ", byte));
  return documents;
}

// As many documents from `first` on as make a group worth encoding at once.
std::size_t end_of_group(const std::vector<std::string_view>& documents, std::size_t first) {
  std::size_t bytes = 0;
  while (first < documents.size() && bytes < kBytesPerGroup) bytes += documents[first++].size();
  return first;
}

void encode_all(TokenFileWriter& writer, const Tokenizer& tokenizer,
                const std::vector<std::string_view>& documents, const PrepareOptions& options) {
  PrepareProgress progress;
  for (const std::string_view document : documents) progress.bytes_total += std::ssize(document);
  for (std::size_t first = 0, last = 0; first < documents.size(); first = last) {
    last = end_of_group(documents, first);
    std::vector<std::vector<std::int32_t>> encoded(last - first);
    parallel_for(std::ssize(encoded), hardware_threads(), [&](std::int64_t index) {
      const auto i = static_cast<std::size_t>(index);
      encoded[i] = tokenizer.encode(documents[first + i]);
      if (options.end_of_text == EndOfText::yes) encoded[i].push_back(tokenizer.end_of_text());
    });
    for (const auto& tokens : encoded) writer.add_document(tokens);
    progress.bytes_done = writer.bytes();
    if (options.on_progress) options.on_progress(progress);
  }
}

}  // namespace

PrepareReport prepare(const PrepareOptions& options) {
  const std::vector<std::string> texts = read_inputs(options);
  const std::vector<std::string_view> documents = split(texts, options.separator);
  const auto tokenizer = choose_tokenizer(options.tokenizer, documents, options.end_of_text);
  if (options.end_of_text == EndOfText::yes && tokenizer->end_of_text() < 0)
    throw Error(concat("the tokenizer of ", options.tokenizer, " has no end-of-text; ",
                       "prepare without it"));
  TokenFileWriter writer(options.output, *tokenizer);
  encode_all(writer, *tokenizer, documents, options);
  PrepareReport report{writer.documents(),      writer.tokens(),   writer.bytes(),
                       tokenizer->vocabulary(), tokenizer->name(), sum_of(texts)};
  writer.finish(report.source_sha256);
  return report;
}

char parse_separator(std::string_view text) {
  if (text.size() == 1) return text[0];
  const bool hexadecimal = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = hexadecimal ? text.substr(2) : text;
  unsigned value = 256;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, hexadecimal ? 16 : 10);
  if (error != std::errc{} || end != digits.data() + digits.size() || value > 255)
    throw Error(concat("separator '", text, "' is not one byte; write it as itself or as a ",
                       "number, such as 0x1E"));
  return static_cast<char>(value);
}

}  // namespace convoy
