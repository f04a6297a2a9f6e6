#include "data/bpe_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "data/piece_counts.h"
#include "data/ranks_file.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

using Tokens = std::vector<std::int32_t>;
using Pair = std::pair<std::int32_t, std::int32_t>;

std::vector<Tokens> pieces_of(std::string_view text) {
  std::vector<Tokens> pieces;
  std::size_t begin = 0;
  for (const std::size_t end : PreTokenizer(std::string(kDefaultExpression)).piece_ends(text)) {
    Tokens& piece = pieces.emplace_back();
    for (; begin < end; ++begin) piece.push_back(static_cast<unsigned char>(text[begin]));
  }
  return pieces;
}

// The pair to merge: all pairs counted anew. The map is in the order in which ties are broken.
Pair most_frequent_pair(const std::vector<Tokens>& pieces) {
  std::map<Pair, int> counts;
  for (const Tokens& piece : pieces)
    for (std::size_t i = 1; i < piece.size(); ++i) ++counts[{piece[i - 1], piece[i]}];
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

Tokens merged(const Tokens& piece, Pair pair, std::int32_t token) {
  Tokens result;
  for (std::size_t i = 0; i < piece.size(); ++i) {
    const bool match = i + 1 < piece.size() && Pair{piece[i], piece[i + 1]} == pair;
    result.push_back(match ? token : piece[i]);
    if (match) ++i;
  }
  return result;
}

// Training as its definition reads, with no index kept from one merge to the next.
std::vector<std::string> train_slowly(std::string_view text, std::size_t vocabulary) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  std::vector<Tokens> pieces = pieces_of(text);
  while (tokens.size() + 1 < vocabulary) {
    const Pair pair = most_frequent_pair(pieces);
    const std::string bytes = tokens[static_cast<std::size_t>(pair.first)] +
                              tokens[static_cast<std::size_t>(pair.second)];
    const auto known = std::find(tokens.begin(), tokens.end(), bytes);
    const auto token = static_cast<std::int32_t>(known - tokens.begin());
    if (known == tokens.end()) tokens.push_back(bytes);
    for (Tokens& piece : pieces) piece = merged(piece, pair, token);
  }
  return tokens;
}

TEST(BpeTrainer, GivesWhatAPlainTrainerGives) {
  for (const std::string_view alphabet : {"ab ", "aab", "the ones\n", "0123456789 .", ""}) {
    const std::string text = random_text(kLongestCountedPiece, alphabet);
    const std::string_view view = text;
    const int vocabulary = 300;
    const auto trained = train_bpe({&view, 1}, {.vocabulary = vocabulary});
    EXPECT_EQ(parse_ranks(trained.description().ranks, "trained"), train_slowly(text, vocabulary))
        << "alphabet '" << alphabet << "'";
  }
}

TEST(BpeTrainer, DoesNotDependOnThreads) {
  const std::string text = random_text(3'000'000, "the ones were\n");
  const std::vector<std::string_view> whole{text};
  const auto one = train_bpe(whole, {.vocabulary = 700, .threads = 1});
  const auto four = train_bpe(whole, {.vocabulary = 700, .threads = 4});
  EXPECT_EQ(one.description(), four.description());
}

TEST(BpeTrainer, MergesTheMostFrequentPairFirst) {
  const std::string_view text = "ababab cd cd";
  const auto tokenizer = train_bpe({&text, 1}, {.vocabulary = 259});
  EXPECT_EQ(tokenizer.bytes_of(256), "ab");
  EXPECT_EQ(tokenizer.bytes_of(257), " c");  // as frequent as "cd" and "ba", but " " is lower
}

TEST(BpeTrainer, RefusesAVocabularyThatCannotBe) {
  const std::string_view text = "aaaa";
  expect_error("257", [&] { train_bpe({&text, 1}, {.vocabulary = 256}); });
  expect_error("at most, not 400", [&] { train_bpe({&text, 1}, {.vocabulary = 400}); });
}

}  // namespace
}  // namespace convoy
