#include "data/training_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "data/byte_tokenizer.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

using Row = std::vector<std::int32_t>;

// Tokens first, first + 1, ...: a window is known by its first token.
std::vector<Row> counting_document(int size, int first = 0) {
  Row tokens(static_cast<std::size_t>(size));
  std::iota(tokens.begin(), tokens.end(), first);
  return {tokens};
}

TEST(TrainingData, VisitsEveryWindowOncePerEpoch) {
  const TemporaryFolder folder;
  write_token_file(folder / "t.h5", ByteTokenizer(), counting_document(42));
  const TrainingData data({.sources = {{folder / "t.h5"}}, .seq_len = 4, .seed = 1});
  ASSERT_EQ(data.windows_per_epoch(), 10);  // tokens 0 .. 40; token 41 has no whole window
  for (const std::int64_t epoch : {0, 1}) {
    std::set<std::int32_t> first_tokens;
    for (std::int64_t sample = 10 * epoch; sample < 10 * (epoch + 1); ++sample) {
      Batch batch(1, 4);
      data.fill(batch, 0, sample);
      const std::int32_t first = batch.tokens[0];
      EXPECT_EQ(first % 4, 0);
      EXPECT_EQ(batch.targets, (Row{first + 1, first + 2, first + 3, first + 4}));
      first_tokens.insert(first);
    }
    EXPECT_EQ(first_tokens.size(), 10u);
  }
}

TEST(TrainingData, CountsTheTargetsOfABatchBeforehand) {
  const TemporaryFolder folder;
  std::vector<Row> documents;
  for (int length = 1; length < 20; ++length) documents.push_back(counting_document(length)[0]);
  write_token_file(folder / "t.h5", ByteTokenizer(), documents);
  const TrainingData data({.sources = {{folder / "t.h5"}}, .seq_len = 8, .seed = 1});
  Batch batch(5, 8);
  for (std::int64_t first = 0; first < 100; first += 5) {
    for (std::int64_t row = 0; row < 5; ++row) data.fill(batch, row, first + row);
    EXPECT_EQ(data.counted_targets(first, 5),
              std::count_if(batch.targets.begin(), batch.targets.end(),
                            [](std::int32_t target) { return target >= 0; }));
  }
}

TEST(TrainingData, MixesSourcesByWeight) {
  const TemporaryFolder folder;
  write_token_file(folder / "low.h5", ByteTokenizer(), counting_document(50, 0));
  write_token_file(folder / "high.h5", ByteTokenizer(), counting_document(50, 100));
  const TrainingData data(
      {.sources = {{folder / "low.h5", 3}, {folder / "high.h5", 1}}, .seq_len = 7, .seed = 1});
  EXPECT_EQ(data.windows_per_epoch(), 14);
  int high = 0;
  Batch batch(1, 7);
  for (std::int64_t sample = 0; sample < 2048; ++sample) {
    data.fill(batch, 0, sample);
    if (batch.tokens[0] >= 100) ++high;
  }
  EXPECT_EQ(high, 512);
}

TEST(TrainingData, RefusesAFileShorterThanAWindow) {
  const TemporaryFolder folder;
  write_token_file(folder / "t.h5", ByteTokenizer(), counting_document(8));
  EXPECT_EQ(TrainingData({.sources = {{folder / "t.h5"}}, .seq_len = 7}).windows_per_epoch(), 1);
  expect_error("has 8 tokens, fewer than the 9",
               [&] { TrainingData({.sources = {{folder / "t.h5"}}, .seq_len = 8}); });
  expect_error("no training data", [] { TrainingData({.sources = {}, .seq_len = 8}); });
}

TEST(TrainingData, RefusesSourcesOfDifferentTokenizers) {
  const TemporaryFolder folder;
  write_token_file(folder / "a.h5", ByteTokenizer(), counting_document(20));
  write_token_file(folder / "b.h5", ByteTokenizer(EndOfText::no), counting_document(20));
  expect_error("not the same tokenizer", [&] {
    TrainingData({.sources = {{folder / "a.h5"}, {folder / "b.h5"}}, .seq_len = 8});
  });
}

TEST(TrainingData, RefusesAModelWithTooSmallAVocabulary) {
  const TemporaryFolder folder;
  write_token_file(folder / "t.h5", ByteTokenizer(), counting_document(20));
  const TrainingData data({.sources = {{folder / "t.h5"}}, .seq_len = 8});
  data.require_vocabulary(257);
  expect_error("set model.vocab to 257 or more", [&] { data.require_vocabulary(256); });
}

}  // namespace
}  // namespace convoy
