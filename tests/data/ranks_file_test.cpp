#include "data/ranks_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "data/bpe_trainer.h"
#include "data/text_file.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

const std::string kText = "the theme of the thesis, the others'. The end\n";

BpeTokenizer trained(std::string expression) {
  const std::string_view text = kText;
  return train_bpe({&text, 1}, {.vocabulary = 270, .expression = std::move(expression)});
}

std::string single_bytes() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  return format_ranks(tokens);
}

TEST(RanksFile, WritesTheLinesOfTiktoken) {
  const std::vector<std::string> tokens{"!", "ab", "abc", std::string("\xff\0", 2)};
  EXPECT_EQ(format_ranks(tokens), "IQ== 0\nYWI= 1\nYWJj 2\n/wA= 3\n");
}

TEST(RanksFile, GivesBackTheTokenizerThatWasSaved) {
  const TemporaryFolder folder;
  const BpeTokenizer saved = trained("[a-z]+|[^a-z]+");
  saved.save(folder / "t.tiktoken");
  const BpeTokenizer loaded = BpeTokenizer::load(folder / "t.tiktoken");
  EXPECT_EQ(loaded.description(), saved.description());
  EXPECT_EQ(loaded.encode(kText), saved.encode(kText));
}

TEST(RanksFile, WithoutAnExpressionBesideItTakesTheDefault) {
  const TemporaryFolder folder;
  const BpeTokenizer saved = trained("[a-z]+|[^a-z]+");
  saved.save(folder / "t.tiktoken");
  std::filesystem::remove(folder / "t.tiktoken.pattern");
  const BpeTokenizer loaded = BpeTokenizer::load(folder / "t.tiktoken");
  EXPECT_EQ(loaded.description().expression, kDefaultExpression);
  EXPECT_EQ(loaded.description().ranks, saved.description().ranks);
}

// In a foreign file bytes need not have the first ranks, nor the lines be in order.
TEST(RanksFile, MayHoldItsRanksInAnyOrder) {
  std::string text = "YWI= 0\r\n";
  for (int byte = 255; byte >= 0; --byte) {
    const std::vector<std::string> token{std::string(1, static_cast<char>(byte))};
    const std::string line = format_ranks(token);
    text += line.substr(0, line.find(' ')) + concat(' ', byte + 1, '\n');
  }
  const BpeTokenizer tokenizer(parse_ranks(text, "foreign"), std::string(kDefaultExpression));
  EXPECT_EQ(tokenizer.encode("abc"), (std::vector<std::int32_t>{0, 'c' + 1}));
}

TEST(RanksFile, NamesTheLineThatIsWrong) {
  const auto expect_refused = [](const std::string& end, std::string_view message) {
    expect_error(message, [&] { parse_ranks(single_bytes() + end, "f"); });
  };
  expect_refused("YW!= 256\n", "f, line 257: 'YW!=' is not base64");
  expect_refused("YWI 256\n", "f, line 257: 'YWI' is not base64");
  expect_refused("YWI=\n", "f, line 257: no rank");
  expect_refused("YWI= x\n", "f, line 257: 'x' is not a rank");
  expect_refused("YWI= -1\n", "f, line 257: '-1' is not a rank");
  expect_refused("YQ== 256\n", "f, line 257: this token occurs a second time");
  expect_refused("YWI= 7\n", "rank 7 occurs a second time");
  expect_refused("YWI= 300\n", "rank 300 among 257 tokens");
  expect_error("byte 0 has no token", [] { parse_ranks("YWI= 0\n", "f"); });
  expect_error("byte 0 has no token", [] { parse_ranks("", "f"); });
}

TEST(RanksFile, NamesAFileThatIsMissing) {
  expect_error("cannot read /nowhere", [] { BpeTokenizer::load("/nowhere"); });
}

}  // namespace
}  // namespace convoy
