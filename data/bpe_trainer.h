// Trains byte-pair encoding (Sennrich et al., 2016) on bytes: starting from the 256 single bytes,
// the most frequent adjacent pair of tokens within pieces becomes a token, again and again.
//
// The result is a function of the text alone: of equally frequent pairs the one with the lowest
// left id, then the lowest right id, is taken; a pair of tokens merges from left to right. Should
// the joined bytes be a token already, the pair merges into that one and no token is added.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/bpe_tokenizer.h"

namespace convoy {

struct BpeTrainingOptions {
  int vocabulary = 4096;  // with end-of-text: 256 bytes, vocabulary - 257 merges, end-of-text
  std::string expression{kDefaultExpression};
  int threads = 0;  // 0: all of the machine
};

// Throws where the text runs out of pairs before the vocabulary is full.
BpeTokenizer train_bpe(std::span<const std::string_view> documents,
                       const BpeTrainingOptions& options);

}  // namespace convoy
