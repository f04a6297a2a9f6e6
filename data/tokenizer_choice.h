// The tokenizer that a user names: `bytes`, `bpe:8192` (trained on the text at hand), or a FILE: a
// tiktoken file, or a token file, whose own tokenizer is taken.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "data/byte_tokenizer.h"
#include "data/tokenizer.h"

namespace convoy {

// `documents` are what bpe:N trains on; without end-of-text, bytes have a vocabulary of 256.
std::unique_ptr<Tokenizer> choose_tokenizer(const std::string& choice,
                                            std::span<const std::string_view> documents,
                                            EndOfText end_of_text = EndOfText::yes);

}  // namespace convoy
