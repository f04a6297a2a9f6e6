// BpeTokenizer: byte-pair encoding by ranks. Text is cut into pieces; a piece that is a token is
// that token; in any other, starting from single bytes, the adjacent pair whose joined bytes have
// the lowest rank is merged, the leftmost of equals first, until no joined pair is a token. That is
// tiktoken's rule, so its files give the same ids here. End-of-text is one id after the last rank.
#pragma once

#include <array>
#include <unordered_map>

#include "data/piece_cache.h"
#include "data/pre_tokenizer.h"
#include "data/tokenizer.h"

namespace convoy {

class BpeTokenizer : public Tokenizer {
 public:
  // `tokens`: bytes by rank, every single byte among them.
  BpeTokenizer(std::vector<std::string> tokens, std::string expression);

  // FILE, with its expression in FILE.pattern; where that does not lie beside it, the file is
  // taken to use kDefaultExpression, as OpenAI's cl100k_base does.
  static BpeTokenizer load(const std::string& path);
  void save(const std::string& path) const;

  std::string name() const override;
  int vocabulary() const override { return static_cast<int>(tokens_.size()) + 1; }
  std::int32_t end_of_text() const override { return static_cast<std::int32_t>(tokens_.size()); }
  std::vector<std::int32_t> encode(std::string_view text) const override;
  std::string_view bytes_of(std::int32_t token) const override;
  TokenizerDescription description() const override;

  // Any number of threads gives the same tokens; encode() takes them all where text is long.
  std::vector<std::int32_t> encode(std::string_view text, int threads) const;

 private:
  using PairRanks = std::unordered_map<std::uint64_t, std::int32_t>;

  void find_pairs();
  void append_piece(std::vector<std::int32_t>& out, std::string_view piece) const;
  std::int32_t rank_of_pair(std::int32_t left, std::int32_t right) const;  // -1: not a token

  friend class PieceMerger;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string_view, std::int32_t> ranks_;  // keys point into tokens_
  PairRanks pair_ranks_;
  std::array<std::int32_t, 256> byte_ranks_{};
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<PieceCache> cache_;
};

}  // namespace convoy
