#include "data/tokenizer.h"

#include <gtest/gtest.h>

#include "data/bpe_trainer.h"
#include "data/byte_tokenizer.h"
#include "data/utf8.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

constexpr std::string_view kEnglish =
    "It's the theme of the thesis that the other ones didn't see 1234 times, naïve as they were.\n"
    "  Indented, she'll say; 東京 and Ελλάδα  \n\n\n";

BpeTokenizer small_bpe(int vocabulary = 300) {
  return train_bpe({&kEnglish, 1}, {.vocabulary = vocabulary});
}

std::vector<std::string> awkward_texts() {
  std::vector<std::string> texts{"",
                                 "a",
                                 std::string(1, '\0'),
                                 "\xff",
                                 "\xc3",
                                 "\xed\xa0\x80",
                                 "\xf4\x90\x80\x80",
                                 "\xc0\xaf",
                                 "caf\xc3\xa9\xc3",
                                 " \xe6\x9d x",
                                 std::string(kEnglish),
                                 random_text(10'000),
                                 random_text(10'000, " \n\t"),
                                 random_text(3000, "a"),
                                 random_text(10'000, "\xc3\xa9 e\x80")};
  for (int byte = 0; byte < 256; ++byte) texts.emplace_back(1, static_cast<char>(byte));
  return texts;
}

TEST(ByteTokenizer, KeepsAnyBytes) {
  const ByteTokenizer tokenizer;
  for (const std::string& text : awkward_texts())
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(ByteTokenizer, HasEndOfTextUnlessToldOtherwise) {
  EXPECT_EQ(ByteTokenizer().vocabulary(), 257);
  EXPECT_EQ(ByteTokenizer().end_of_text(), 256);
  EXPECT_EQ(ByteTokenizer().token_bytes(256), 0);
  EXPECT_EQ(ByteTokenizer().token_bytes(255), 1);
  EXPECT_EQ(ByteTokenizer(EndOfText::no).vocabulary(), 256);
  EXPECT_EQ(ByteTokenizer(EndOfText::no).end_of_text(), -1);
}

TEST(BpeTokenizer, KeepsAnyBytes) {
  const BpeTokenizer tokenizer = small_bpe();
  for (const std::string& text : awkward_texts())
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(BpeTokenizer, KeepsAnyBytesUnderAnExpressionThatMatchesLittle) {
  const BpeTokenizer tokenizer = train_bpe({&kEnglish, 1}, {.vocabulary = 270, .expression = "th"});
  for (const std::string& text : awkward_texts())
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(BpeTokenizer, HasEndOfTextAfterTheRanks) {
  const BpeTokenizer tokenizer = small_bpe();
  EXPECT_EQ(tokenizer.vocabulary(), 300);
  EXPECT_EQ(tokenizer.end_of_text(), 299);
  EXPECT_EQ(tokenizer.token_bytes(299), 0);
  EXPECT_EQ(tokenizer.name(), "bpe:300");
  expect_error("token 300 is outside", [&] { tokenizer.decode(std::vector<std::int32_t>{300}); });
}

// Sizes around the length at which the work is cut into tasks; one text is a single long word.
TEST(BpeTokenizer, GivesTheSameTokensOnAnyNumberOfThreads) {
  const BpeTokenizer tokenizer = small_bpe();
  const std::size_t size = (std::size_t{3} << 20) + 3;
  for (const std::string_view alphabet : {"the ones\n ", "e", " ", "\xc3\xa9 e\x80", ""}) {
    const std::string text = random_text(size, alphabet);
    const auto tokens = tokenizer.encode(text, 1);
    EXPECT_EQ(tokenizer.encode(text, 4), tokens) << "alphabet '" << alphabet << "'";
    EXPECT_EQ(tokenizer.decode(tokens), text);
  }
}

// The pieces found by tasks that start in mid-word must be those of one search from the front.
// Among digits, cut in threes, a task that starts out of step never falls into step by itself.
TEST(PreTokenizer, CutsALongTextAsIfItWereCutFromTheFront) {
  const PreTokenizer pre_tokenizer{std::string(kDefaultExpression)};
  constexpr std::size_t kOneTask = (std::size_t{2} << 20) - 1;
  for (const std::string_view alphabet : {"ab \n1.'s\xc3\xa9", "0123456789"}) {
    const std::string text = random_text(kOneTask + 14, alphabet);  // two tasks
    const std::vector<std::size_t> ends = pre_tokenizer.piece_ends(text, 3);
    ASSERT_EQ(ends.back(), text.size());
    // A shorter text is searched in one go; only its last pieces may differ.
    const auto expected = pre_tokenizer.piece_ends(std::string_view(text).substr(0, kOneTask));
    EXPECT_TRUE(std::equal(expected.begin(), expected.end() - 8, ends.begin())) << alphabet;
  }
}

TEST(PreTokenizer, CutsAsItsExpressionSays) {
  const PreTokenizer pre_tokenizer{std::string(kDefaultExpression)};
  const std::string_view text = "It's 12345  times\n\nnaïve\xff!";
  std::vector<std::string> pieces;
  std::size_t begin = 0;
  for (const std::size_t end : pre_tokenizer.piece_ends(text)) {
    pieces.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  EXPECT_EQ(pieces, (std::vector<std::string>{"It", "'s", " ", "123", "45", " ", " times", "\n\n",
                                              "naïve", "\xff", "!"}));
}

TEST(PreTokenizer, SaysWhereAnExpressionIsWrong) {
  expect_error("wrong at character 3", [] { PreTokenizer("a(b"); });
}

TEST(MakeTokenizer, BuildsATokenizerAgainFromItsDescription) {
  const BpeTokenizer bpe = small_bpe();
  const auto again = make_tokenizer(bpe.description());
  EXPECT_EQ(again->encode(kEnglish), bpe.encode(kEnglish));
  EXPECT_EQ(again->description(), bpe.description());
  EXPECT_EQ(make_tokenizer(ByteTokenizer(EndOfText::no).description())->vocabulary(), 256);
  expect_error("unknown kind of tokenizer 'words'", [] {
    make_tokenizer({"words", true, "", ""});
  });
}

TEST(Utf8, KnowsWhatIsValid) {
  EXPECT_EQ(utf8_length("a", 0), 1u);
  EXPECT_EQ(utf8_length("é", 0), 2u);
  EXPECT_EQ(utf8_length("東", 0), 3u);
  EXPECT_EQ(utf8_length("\xf4\x8f\xbf\xbf", 0), 4u);
  for (const std::string_view bad :
       {"\x80", "\xc3", "\xc3z", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80", "\xff"})
    EXPECT_EQ(utf8_length(bad, 0), 0u) << bad;
}

}  // namespace
}  // namespace convoy
