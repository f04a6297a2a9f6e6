#include "data/tokenizer.h"

#include "core/error.h"
#include "data/bpe_tokenizer.h"
#include "data/byte_tokenizer.h"
#include "data/ranks_file.h"

namespace convoy {

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (const std::int32_t token : tokens) {
    if (token < 0 || token >= vocabulary())
      throw Error(concat("token ", token, " is outside the vocabulary of ", name(), ", which has ",
                         vocabulary()));
    text += bytes_of(token);
  }
  return text;
}

std::unique_ptr<Tokenizer> make_tokenizer(const TokenizerDescription& description) {
  if (description.kind == "bytes")
    return std::make_unique<ByteTokenizer>(description.has_end_of_text ? EndOfText::yes
                                                                       : EndOfText::no);
  if (description.kind == "bpe")
    return std::make_unique<BpeTokenizer>(
        parse_ranks(description.ranks, "the tokenizer inside a file"), description.expression);
  throw Error(concat("unknown kind of tokenizer '", description.kind,
                     "'; this version of Convoy knows bytes and bpe"));
}

}  // namespace convoy
