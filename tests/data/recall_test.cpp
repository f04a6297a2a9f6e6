// Associative recall: samples obey the definition, a reader without a model finds every answer, and
// a sample is a function of seed and index alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/error.h"
#include "data/recall_samples.h"
#include "data/training_data.h"
#include "tests/data/fixtures.h"

namespace convoy {
namespace {

using Tokens = std::vector<std::int32_t>;

struct Sample {
  Tokens tokens, targets;
};

Sample sample_of(const RecallTask& task, std::int64_t index, std::uint64_t seed = 3) {
  const auto length = static_cast<std::size_t>(task.length());
  Sample sample{Tokens(length), Tokens(length)};
  task.fill(sample.tokens, sample.targets, RandomStream(seed, "test"), index);
  return sample;
}

RecallTask task_of(std::int64_t pairs, std::int64_t length, std::int64_t vocabulary,
                   RecallKeys keys) {
  return {{.pairs = pairs, .keys = keys, .samples = 100, .vocabulary = vocabulary}, length};
}

// What a sample shows: its pairs, read from the start up to the K-th value.
struct Context {
  std::map<Tokens, std::int32_t> value_of;
  std::size_t end = 0;
};

Context read_context(const Sample& sample, std::size_t pairs, std::int32_t first_value) {
  Context context;
  Tokens key;
  while (context.value_of.size() < pairs) {
    const std::int32_t token = sample.tokens.at(context.end++);
    if (token < first_value) {
      key.push_back(token);
      continue;
    }
    EXPECT_TRUE(context.value_of.emplace(key, token).second) << "a key twice";
    key.clear();
  }
  return context;
}

// The key that ends at a position: everything since the last filler.
Tokens key_before(const Sample& sample, std::size_t position) {
  std::size_t begin = position;
  while (sample.tokens[begin - 1] != 0) --begin;
  const auto at = [&](std::size_t i) {
    return sample.tokens.begin() + static_cast<std::ptrdiff_t>(i);
  };
  return {at(begin), at(position + 1)};
}

void expect_every_key_asked_once(const Sample& sample, const Context& context) {
  std::set<Tokens> asked;
  for (std::size_t t = 0; t < sample.tokens.size(); ++t) {
    if (sample.targets[t] < 0) continue;
    ASSERT_GE(t, context.end);
    const Tokens key = key_before(sample, t);
    ASSERT_TRUE(context.value_of.contains(key));
    EXPECT_EQ(sample.targets[t], context.value_of.at(key));
    EXPECT_TRUE(asked.insert(key).second) << "asked twice";
  }
  EXPECT_EQ(asked.size(), context.value_of.size());
}

std::set<std::int32_t> distinct_values(const Context& context) {
  std::set<std::int32_t> values;
  for (const auto& [key, value] : context.value_of) values.insert(value);
  return values;
}

TEST(Recall, KeysOfOneTokenObeyTheDefinition) {
  struct Case {
    std::int64_t pairs, length, vocabulary;
  };
  for (const auto& [pairs, length, vocabulary] :
       {Case{4, 64, 8192}, Case{64, 512, 8192}, Case{7, 28, 16}, Case{1, 5, 4}}) {
    const RecallTask task = task_of(pairs, length, vocabulary, RecallKeys::single);
    const auto half = static_cast<std::int32_t>(vocabulary / 2);
    for (std::int64_t i = 0; i < 50; ++i) {
      const Sample sample = sample_of(task, i);
      const Context context = read_context(sample, static_cast<std::size_t>(pairs), half);
      ASSERT_EQ(context.end, static_cast<std::size_t>(2 * pairs));
      EXPECT_EQ(distinct_values(context).size(), static_cast<std::size_t>(pairs));
      std::set<std::int32_t> asked;
      for (std::size_t t = context.end; t < sample.tokens.size(); ++t) {
        const std::int32_t token = sample.tokens[t];
        EXPECT_EQ(token == 0, sample.targets[t] < 0);
        if (token == 0) continue;
        EXPECT_EQ((t - context.end) % 2, 0u);
        EXPECT_TRUE(token >= 1 && token < half);
        EXPECT_EQ(context.value_of.at({token}), sample.targets[t]);
        asked.insert(token);
      }
      EXPECT_EQ(asked.size(), static_cast<std::size_t>(pairs));
    }
  }
}

bool is_prefix(const Tokens& a, const Tokens& b) {
  return a.size() <= b.size() && std::equal(a.begin(), a.end(), b.begin());
}

TEST(Recall, VariableKeysObeyTheDefinition) {
  for (const auto& [pairs, length] : {std::pair{4, 64}, {16, 256}, {64, 512}, {4, 28}, {1, 7}}) {
    const RecallTask task = task_of(pairs, length, 8192, RecallKeys::variable);
    for (std::int64_t i = 0; i < 50; ++i) {
      const Sample sample = sample_of(task, i);
      const Context context = read_context(sample, static_cast<std::size_t>(pairs), 4096);
      EXPECT_EQ(distinct_values(context).size(), static_cast<std::size_t>(pairs));
      for (const auto& [key, value] : context.value_of) {
        EXPECT_TRUE(!key.empty() && key.size() <= 4);
        for (const std::int32_t token : key) EXPECT_TRUE(token >= 1 && token <= pairs);
        for (const auto& [other, unused] : context.value_of) {
          EXPECT_FALSE(key != other && is_prefix(key, other));
        }
      }
      EXPECT_EQ(sample.tokens[context.end], 0) << "no filler before the first query";
      expect_every_key_asked_once(sample, context);
    }
  }
}

TEST(Recall, TheLengthsOfVariableKeysAreUniform) {
  const RecallTask task = task_of(8, 512, 8192, RecallKeys::variable);  // 512: nothing is refused
  constexpr int kSamples = 2000;
  std::array<double, 5> count{};
  for (int i = 0; i < kSamples; ++i) {
    for (const auto& [key, value] : read_context(sample_of(task, i), 8, 4096).value_of) {
      ++count[key.size()];
    }
  }
  const double n = 8 * kSamples, sigma = std::sqrt(n * 0.25 * 0.75);
  for (const std::size_t size : {1u, 2u, 3u, 4u}) EXPECT_NEAR(count[size], n / 4, 5 * sigma);
}

TEST(Recall, SlotsAreDrawnByTheirWeights) {
  const RecallTask task = task_of(1, 12, 64, RecallKeys::single);  // S = 5
  constexpr int kSamples = 20000;
  std::array<double, 5> count{};
  for (int i = 0; i < kSamples; ++i) {
    const Sample sample = sample_of(task, i);
    for (std::size_t slot = 0; slot < 5; ++slot) count[slot] += sample.targets[2 + 2 * slot] >= 0;
  }
  std::array<double, 5> weight{};
  double sum = 0;
  for (std::size_t slot = 0; slot < 5; ++slot) {
    sum += weight[slot] = std::pow(static_cast<double>(slot + 1), 0.01 - 1);
  }
  for (std::size_t slot = 0; slot < 5; ++slot) {
    const double p = weight[slot] / sum;
    EXPECT_NEAR(count[slot] / kSamples, p, 5 * std::sqrt(p * (1 - p) / kSamples)) << slot;
  }
}

TEST(Recall, TheLastTokenAloneGivesAboutTwoThirds) {
  const RecallTask task = task_of(8, 128, 8192, RecallKeys::variable);
  for (std::int64_t i = 0; i < 20; ++i) {
    const Sample sample = sample_of(task, i);
    std::map<std::int32_t, double> endings;
    for (const auto& [key, value] : read_context(sample, 8, 4096).value_of) ++endings[key.back()];
    const auto oracle = last_token_oracle(sample.tokens, sample.targets, 8192);
    EXPECT_EQ(oracle.asked, 8);
    // One right guess for each ending, on average.
    EXPECT_NEAR(oracle.right, static_cast<double>(endings.size()), 1e-12);
  }
  const RecallValidation validation(task_of(8, 128, 8192, RecallKeys::variable));
  EXPECT_NEAR(*validation.last_token_accuracy(), 0.66, 0.04);
  EXPECT_FALSE(RecallValidation(task_of(8, 128, 8192, RecallKeys::single)).last_token_accuracy());
}

TEST(Recall, ASampleIsAFunctionOfSeedAndIndex) {
  const TrainingDataOptions options{
      .sources = {{"mqar:pairs=4,keys=variable,samples=10,vocab=64"}}, .seq_len = 40, .seed = 5};
  const TrainingData data(options), again(options);
  EXPECT_EQ(data.windows_per_epoch(), 10);
  EXPECT_EQ(data.vocabulary(), 64);
  EXPECT_FALSE(data.tokenizer());
  Batch forward(20, 40), backward(20, 40);
  for (std::int64_t i = 0; i < 20; ++i) data.fill(forward, i, i);
  for (std::int64_t i = 19; i >= 0; --i) again.fill(backward, i, i);
  EXPECT_EQ(forward.tokens, backward.tokens);
  EXPECT_EQ(forward.targets, backward.targets);
  std::set<Tokens> first, second;  // epochs
  for (std::int64_t i = 0; i < 20; ++i) {
    const auto begin = forward.tokens.begin() + i * 40;
    (i < 10 ? first : second).insert(Tokens(begin, begin + 40));
  }
  EXPECT_EQ(first.size(), 10u);
  EXPECT_EQ(first, second);
  TrainingDataOptions other = options;
  other.seed = 6;
  TrainingData(other).fill(backward, 0, 0);
  EXPECT_NE(Tokens(backward.tokens.begin(), backward.tokens.begin() + 40),
            Tokens(forward.tokens.begin(), forward.tokens.begin() + 40));
}

TEST(Recall, TheCountedTargetsAreTheLabels) {
  const TrainingData data({.sources = {{"mqar:pairs=4,vocab=64"}}, .seq_len = 16, .seed = 1});
  Batch batch(6, 16);
  for (std::int64_t i = 0; i < 6; ++i) data.fill(batch, i, i);
  EXPECT_EQ(data.counted_targets(0, 6), std::count_if(batch.targets.begin(), batch.targets.end(),
                                                      [](int t) { return t >= 0; }));
}

TEST(Recall, ValidationSharesNoSampleWithTrainingAndPadsItsEnd) {
  const auto validation = open_validation("mqar:pairs=4,vocab=64,samples=5", 16, Pack::stream);
  EXPECT_EQ(validation->size(), 5);
  Batch val(8, 16), train(8, 16);
  const TrainingData data(
      {.sources = {{"mqar:pairs=4,vocab=64,samples=5"}}, .seq_len = 16, .seed = 0});
  for (std::int64_t i = 0; i < 8; ++i) {
    validation->fill(val, i, i);
    data.fill(train, i, i);
  }
  EXPECT_TRUE(std::all_of(val.targets.begin() + 5 * 16, val.targets.end(),
                          [](int target) { return target == -1; }));
  for (std::int64_t i = 0; i < 5; ++i) {
    for (std::int64_t j = 0; j < 5; ++j) {
      EXPECT_FALSE(std::equal(val.tokens.begin() + i * 16, val.tokens.begin() + (i + 1) * 16,
                              train.tokens.begin() + j * 16));
    }
  }
}

TEST(Recall, RefusesWhatCannotBe) {
  const auto make = [](const std::string& source, std::int64_t length) {
    return [=] { RecallTask(parse_recall(source), length); };
  };
  expect_error("lacks pairs=K", make("mqar:vocab=64", 64));
  expect_error("\"pair=4\"", make("mqar:pair=4", 64));
  expect_error("\"many\"", make("mqar:pairs=many", 64));
  expect_error("\"keys=long\"", make("mqar:pairs=4,keys=long", 64));
  expect_error("needs a vocabulary of 10 or more", make("mqar:pairs=4,vocab=9", 64));
  expect_error("needs 16 = 4 x 4 positions", make("mqar:pairs=4", 15));
  expect_error("needs 28 = 7 x 4 positions", make("mqar:pairs=4,keys=variable", 27));
  make("mqar:pairs=4,keys=variable,vocab=10", 28)();
  expect_error("not the same tokenizer", [] {
    TrainingData(
        {.sources = {{"mqar:pairs=4,vocab=64"}, {"mqar:pairs=4,vocab=128"}}, .seq_len = 16});
  });
}

}  // namespace
}  // namespace convoy
