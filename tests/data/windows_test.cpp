#include "data/windows.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "data/byte_tokenizer.h"
#include "data/validation_windows.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

using Row = std::vector<std::int32_t>;

// Three documents, each closed by end-of-text; the second is nothing else.
//   index   0 1 2   3   4   5 6 7 8 9
//   token   1 2 3 256 256   4 5 6 7 256
class Windows : public testing::Test {
 protected:
  void SetUp() override {
    write_token_file(folder_ / "t.h5", ByteTokenizer(), {{1, 2, 3, 256}, {256}, {4, 5, 6, 7, 256}});
  }
  TokenFile file() const { return TokenFile(folder_ / "t.h5"); }

  TemporaryFolder folder_;
};

TEST_F(Windows, OfAStreamRunAcrossDocuments) {
  Batch batch(1, 4);
  fill_window(batch, 0, file(), 2, Pack::stream);
  EXPECT_EQ(batch.tokens, (Row{3, 256, 256, 4}));
  EXPECT_EQ(batch.targets, (Row{256, 256, 4, 5}));
  EXPECT_EQ(batch.document_start, (Row{0, 0, 0, 0}));
  EXPECT_EQ(counted_targets(file(), 2, 4, Pack::stream), 4);
}

TEST_F(Windows, OfDocumentsMaskTargetsThatBeginOne) {
  Batch batch(1, 4);
  fill_window(batch, 0, file(), 2, Pack::documents);
  EXPECT_EQ(batch.tokens, (Row{3, 256, 256, 4}));
  EXPECT_EQ(batch.targets, (Row{256, -1, -1, 5}));  // the document of one token predicts nothing
  EXPECT_EQ(batch.document_start, (Row{0, 0, 2, 3}));
  EXPECT_EQ(counted_targets(file(), 2, 4, Pack::documents), 2);
}

TEST_F(Windows, MaskALastTargetThatBeginsADocument) {
  Batch batch(1, 4);
  fill_window(batch, 0, file(), 0, Pack::documents);
  EXPECT_EQ(batch.targets, (Row{2, 3, 256, -1}));
  EXPECT_EQ(batch.document_start, (Row{0, 0, 0, 0}));
}

TEST_F(Windows, AreWrittenIntoTheirRowAlone) {
  Batch batch(3, 2);
  std::fill(batch.tokens.begin(), batch.tokens.end(), 99);
  fill_window(batch, 1, file(), 5, Pack::documents);
  EXPECT_EQ(batch.tokens, (Row{99, 99, 4, 5, 99, 99}));
  expect_error("row 3 of 3", [&] { fill_window(batch, 3, file(), 5, Pack::documents); });
}

TEST_F(Windows, OfValidationEndWithAShorterOneAndPadding) {
  const TokenFile tokens = file();
  const ValidationWindows windows(tokens, 4, Pack::documents);
  ASSERT_EQ(windows.size(), 3);
  Batch batch(2, 4);
  windows.fill(batch, 0, 2);
  windows.fill(batch, 1, 3);
  EXPECT_EQ(batch.tokens, (Row{7, 256, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(batch.targets, (Row{256, -1, -1, -1, -1, -1, -1, -1}));
}

TEST_F(Windows, OfValidationCountEveryByteButThoseThatNothingPredicts) {
  const TokenFile tokens = file();
  for (const std::int64_t seq_len : {1, 2, 3, 4, 8, 9, 100}) {
    std::int64_t stream_bytes = 0, stream_targets = 0, document_bytes = 0, document_targets = 0;
    const ValidationWindows stream(tokens, seq_len, Pack::stream);
    const ValidationWindows documents(tokens, seq_len, Pack::documents);
    for (std::int64_t w = 0; w < stream.size(); ++w) {
      stream_bytes += stream.counted(w).bytes;
      stream_targets += stream.counted(w).targets;
      document_bytes += documents.counted(w).bytes;
      document_targets += documents.counted(w).targets;
    }
    EXPECT_EQ(stream_bytes, tokens.bytes() - 1);  // all but the first token
    EXPECT_EQ(stream_targets, tokens.tokens() - 1);
    EXPECT_EQ(document_bytes, tokens.bytes() - 2);  // all but the first of documents 1 and 3
    EXPECT_EQ(document_targets, tokens.tokens() - 3);
  }
}

TEST_F(Windows, HaveAsManyCountedTargetsAsAreSaid) {
  const TokenFile tokens = file();
  for (const Pack pack : {Pack::stream, Pack::documents})
    for (std::int64_t length = 1; length <= 10; ++length)
      for (std::int64_t begin = 0; begin <= 10; ++begin) {
        Batch batch(1, length);
        fill_window(batch, 0, tokens, begin, pack);
        EXPECT_EQ(counted_targets(tokens, begin, length, pack),
                  std::count_if(batch.targets.begin(), batch.targets.end(),
                                [](std::int32_t target) { return target >= 0; }));
      }
}

TEST(Pack, IsParsedFromItsName) {
  EXPECT_EQ(parse_pack("documents"), Pack::documents);
  EXPECT_EQ(parse_pack("stream"), Pack::stream);
  expect_error("\"documents\" or \"stream\"", [] { parse_pack("none"); });
}

}  // namespace
}  // namespace convoy
