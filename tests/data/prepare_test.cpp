#include "data/prepare.h"

#include <gtest/gtest.h>

#include "core/sha256.h"
#include "data/bpe_tokenizer.h"
#include "data/text_file.h"
#include "data/token_file.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

using Tokens = std::vector<std::int32_t>;
using Starts = std::vector<std::int64_t>;

class Prepare : public testing::Test {
 protected:
  std::string input(std::string_view name, std::string_view text) {
    write_text_file(folder_ / name, text);
    return folder_ / name;
  }
  Tokens tokens() const {
    const TokenFile file(output_);
    Tokens result(static_cast<std::size_t>(file.tokens()));
    file.read(0, result);
    return result;
  }
  Starts starts() const {
    const TokenFile file(output_);
    return {file.document_starts().begin(), file.document_starts().end()};
  }

  TemporaryFolder folder_;
  std::string output_ = folder_ / "out.h5";
};

TEST_F(Prepare, MakesADocumentOfEachFile) {
  const auto report = prepare({.inputs = {input("a", "ab"), input("b", "c")}, .output = output_});
  EXPECT_EQ(tokens(), (Tokens{'a', 'b', 256, 'c', 256}));
  EXPECT_EQ(starts(), (Starts{0, 3}));
  EXPECT_EQ(report.documents, 2);
  EXPECT_EQ(report.tokens, 5);
  EXPECT_EQ(report.bytes, 3);
  EXPECT_EQ(report.vocabulary, 257);
  EXPECT_EQ(report.source_sha256, sha256_of("abc"));
}

TEST_F(Prepare, SplitsAtTheSeparatorAndDropsEmptyDocuments) {
  prepare({.inputs = {input("a",
                            "\x1e"
                            "ab\x1e\x1e"
                            "c\x1e"),
                      input("b", "d")},
           .output = output_,
           .separator = '\x1e'});
  EXPECT_EQ(tokens(), (Tokens{'a', 'b', 256, 'c', 256, 'd', 256}));
  EXPECT_EQ(starts(), (Starts{0, 3, 5}));
}

TEST_F(Prepare, LeavesEndOfTextOutWhenTold) {
  const auto report = prepare({.inputs = {input("a", "ab"), input("b", "c")},
                               .output = output_,
                               .end_of_text = EndOfText::no});
  EXPECT_EQ(tokens(), (Tokens{'a', 'b', 'c'}));
  EXPECT_EQ(starts(), (Starts{0, 2}));
  EXPECT_EQ(report.vocabulary, 256);
}

TEST_F(Prepare, TrainsATokenizerThatOtherFilesCanUse) {
  const std::string text = random_text(20'000, "the ones\n ");
  prepare({.inputs = {input("a", text)}, .tokenizer = "bpe:400", .output = output_});
  const auto trained = TokenFile(output_).tokenizer();
  EXPECT_EQ(trained->vocabulary(), 400);
  dynamic_cast<const BpeTokenizer&>(*trained).save(folder_ / "saved");
  for (const std::string& choice : {output_, folder_ / "saved"}) {
    prepare({.inputs = {input("b", "the one")}, .tokenizer = choice, .output = folder_ / "b.h5"});
    EXPECT_EQ(TokenFile(folder_ / "b.h5").tokenizer_description(), trained->description());
  }
}

TEST_F(Prepare, ReportsItsProgress) {
  PrepareProgress last;
  prepare({.inputs = {input("a", "abc")},
           .output = output_,
           .on_progress = [&](const PrepareProgress& progress) { last = progress; }});
  EXPECT_EQ(last.bytes_done, 3);
  EXPECT_EQ(last.bytes_total, 3);
}

TEST_F(Prepare, RefusesWhatItCannotPrepareAndLeavesNothingBehind) {
  const std::string good = input("good", "text"), empty = input("empty", "");
  const auto expect_refused = [&](std::string_view message, PrepareOptions options) {
    options.output = output_;
    expect_error(message, [&] { prepare(options); });
    EXPECT_EQ(folder_.entries(), 2);
  };
  expect_refused("nothing to prepare", {});
  expect_refused("cannot read", {.inputs = {good, folder_ / "absent"}});
  expect_refused("empty is empty", {.inputs = {good, empty}});
  expect_refused("byte 30, occurs in none", {.inputs = {good}, .separator = '\x1e'});
  expect_refused("neither bytes, nor bpe:N", {.inputs = {good}, .tokenizer = "word"});
  expect_refused("size of the vocabulary", {.inputs = {good}, .tokenizer = "bpe:many"});
  expect_refused("line 1: no rank", {.inputs = {good}, .tokenizer = good});
}

TEST(ParseSeparator, TakesAByteAsItselfOrAsANumber) {
  EXPECT_EQ(parse_separator("|"), '|');
  EXPECT_EQ(parse_separator("0x1E"), '\x1e');
  EXPECT_EQ(parse_separator("30"), '\x1e');
  for (const std::string_view bad : {"", "0x", "256", "0x100", "ab", "1e"})
    expect_error("is not one byte", [&] { parse_separator(bad); });
}

}  // namespace
}  // namespace convoy
