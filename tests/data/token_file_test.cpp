#include "data/token_file.h"

#include <gtest/gtest.h>

#include <numeric>

#include "data/bpe_trainer.h"
#include "data/byte_tokenizer.h"
#include "data/text_file.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

using Tokens = std::vector<std::int32_t>;

// A vocabulary of more than 65536: the single bytes and every pair of them up to `vocabulary`.
BpeTokenizer wide_tokenizer(int vocabulary) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  for (int pair = 0; static_cast<int>(tokens.size()) + 1 < vocabulary; ++pair)
    tokens.push_back({static_cast<char>(pair >> 8), static_cast<char>(pair & 255)});
  return BpeTokenizer(std::move(tokens), "(?s).+");
}

Tokens all_of(const TokenFile& file) {
  Tokens tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  return tokens;
}

TEST(TokenFile, GivesBackWhatWasWritten) {
  const TemporaryFolder folder;
  write_token_file(folder / "t.h5", ByteTokenizer(), {{'a', 'b', 256}, {256}, {'c', 256}});
  const TokenFile file(folder / "t.h5");
  EXPECT_EQ(all_of(file), (Tokens{'a', 'b', 256, 256, 'c', 256}));
  EXPECT_EQ(std::vector(file.document_starts().begin(), file.document_starts().end()),
            (std::vector<std::int64_t>{0, 3, 4}));
  EXPECT_EQ(file.vocabulary(), 257);
  EXPECT_EQ(file.end_of_text(), 256);
  EXPECT_EQ(file.bytes(), 3);
  EXPECT_EQ(file.token_bytes('a'), 1);
  EXPECT_EQ(file.token_bytes(256), 0);
  EXPECT_EQ(file.source_sha256(), "sum");
  EXPECT_EQ(file.tokenizer_name(), "bytes");
}

TEST(TokenFile, HoldsVocabulariesBeyondSixteenBits) {
  const TemporaryFolder folder;
  for (const int vocabulary : {65536, 65537}) {
    const Tokens tokens{0, vocabulary - 1, vocabulary - 2};
    write_token_file(folder / "t.h5", wide_tokenizer(vocabulary), {tokens});
    const auto type = Hdf5File(folder / "t.h5", Hdf5File::Mode::read).info("tokens").type;
    EXPECT_EQ(type, vocabulary == 65536 ? ElementType::u16 : ElementType::u32);
    EXPECT_EQ(all_of(TokenFile(folder / "t.h5")), tokens);
    EXPECT_EQ(all_of(TokenFile(folder / "t.h5", 0)), tokens);
  }
}

TEST(TokenFile, ReadsTheSameFromDiskAsFromMemory) {
  const TemporaryFolder folder;
  Tokens tokens(600'000);  // more than two chunks
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(i * i % 257);
  write_token_file(folder / "t.h5", ByteTokenizer(), {tokens});
  const TokenFile memory(folder / "t.h5"), disk(folder / "t.h5", 0);
  EXPECT_EQ(all_of(memory), tokens);
  EXPECT_EQ(all_of(disk), tokens);
  Tokens part(1000);
  disk.read(262'000, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), tokens.begin() + 262'000));
  expect_error("which has 600000", [&] { disk.read(599'500, part); });
}

TEST(TokenFile, CarriesItsTokenizer) {
  const TemporaryFolder folder;
  const std::string_view text = "the theme of the thesis";
  const BpeTokenizer tokenizer = train_bpe({&text, 1}, {.vocabulary = 262});
  write_token_file(folder / "t.h5", tokenizer, {tokenizer.encode(text)});
  const auto found = TokenFile(folder / "t.h5").tokenizer();
  EXPECT_EQ(found->description(), tokenizer.description());
  EXPECT_EQ(found->decode(all_of(TokenFile(folder / "t.h5"))), text);
}

TEST(TokenFileWriter, LeavesNothingUnlessFinished) {
  const TemporaryFolder folder;
  write_text_file(folder / "t.h5", "before");
  { TokenFileWriter(folder / "t.h5", ByteTokenizer()).add_document(Tokens{1, 2}); }
  EXPECT_EQ(read_text_file(folder / "t.h5"), "before");
  EXPECT_EQ(folder.entries(), 1);
}

TEST(TokenFile, RefusesOtherFiles) {
  const TemporaryFolder folder;
  Hdf5File(folder / "other.h5", Hdf5File::Mode::create).write("x", std::vector<float>{1});
  expect_error("is not a token file", [&] { TokenFile(folder / "other.h5"); });
  write_token_file(folder / "t.h5", ByteTokenizer(), {{1, 2}});
  Hdf5File(folder / "t.h5", Hdf5File::Mode::update)
      .set_attribute("/", "format_version", std::int64_t{9});
  expect_error("version 9", [&] { TokenFile(folder / "t.h5"); });
}

TEST(TokenFile, RefusesTokensOutsideItsVocabulary) {
  const TemporaryFolder folder;
  write_token_file(folder / "t.h5", ByteTokenizer(), {{1, 2}});
  const std::uint16_t wrong = 257;
  Hdf5File(folder / "t.h5", Hdf5File::Mode::update)
      .write_rows("tokens", ElementType::u16, 1, 1, &wrong);
  expect_error("outside the vocabulary", [&] { TokenFile(folder / "t.h5"); });
}

}  // namespace
}  // namespace convoy
