#include "data/tokenizer_choice.h"

#include <charconv>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "data/bpe_trainer.h"
#include "data/token_file.h"

namespace convoy {
namespace {

constexpr std::string_view kBpe = "bpe:";

int parse_vocabulary(std::string_view choice) {
  const std::string_view digits = choice.substr(kBpe.size());
  int vocabulary = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), vocabulary);
  if (error != std::errc{} || end != digits.data() + digits.size())
    throw Error(concat("tokenizer '", choice, "': after bpe: stands the size of the vocabulary, ",
                       "as in bpe:8192"));
  return vocabulary;
}

bool is_hdf5(const std::string& path) {
  constexpr std::string_view kSignature = "\x89HDF\r\n";
  std::string start(kSignature.size(), '\0');
  std::ifstream(path, std::ios::binary).read(start.data(), std::ssize(start));
  return start == kSignature;
}

}  // namespace

std::unique_ptr<Tokenizer> choose_tokenizer(const std::string& choice,
                                            std::span<const std::string_view> documents,
                                            EndOfText end_of_text) {
  if (choice == "bytes") return std::make_unique<ByteTokenizer>(end_of_text);
  if (choice.starts_with(kBpe))
    return std::make_unique<BpeTokenizer>(
        train_bpe(documents, {.vocabulary = parse_vocabulary(choice)}));
  if (!std::filesystem::is_regular_file(choice))
    throw Error(concat("tokenizer '", choice, "' is neither bytes, nor bpe:N, nor a file"));
  if (is_hdf5(choice)) return TokenFile(choice, 0).tokenizer();
  return std::make_unique<BpeTokenizer>(BpeTokenizer::load(choice));
}

}  // namespace convoy
