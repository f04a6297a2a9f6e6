#include "experiments/run_record.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "tests/experiments/run_directory.h"

namespace convoy {
namespace {

using testing::eval_row;
using testing::TemporaryDirectory;
using testing::train_row;
using testing::write_run;
using testing::write_text;

std::string message_of(const std::filesystem::path& directory) {
  try {
    read_run(directory);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(RunRecord, ReadsIdentityRowsAndConfig) {
  const TemporaryDirectory place;
  const RunRecord run = read_run(write_run(place.path(), {.name = "a", .seed = 7}));
  EXPECT_EQ(run.name, "a");
  EXPECT_EQ(run.seed, 7);
  EXPECT_EQ(run.ranks, 2);
  EXPECT_EQ(run.parameters, 793728);
  EXPECT_EQ(run.steps, 1);
  EXPECT_DOUBLE_EQ(run.flops, 1e9);
  EXPECT_DOUBLE_EQ(run.train.front().train_loss, 2.0);
  EXPECT_TRUE(std::isnan(run.train.front().mfu));
  EXPECT_NE(run.config.find("steps = 10"), std::string::npos);
  EXPECT_TRUE(run.notes.empty());
}

// Killed after step 5 and resumed from a checkpoint at 3: steps 4 and 5 were trained twice.
TEST(RunRecord, RowsTrainedAgainByANewerAttemptReplaceTheOldOnes) {
  const TemporaryDirectory place;
  std::string metrics;
  for (int step = 1; step <= 5; ++step) metrics += train_row(1, step, 10 + step);
  metrics += eval_row(1, 2, 2.2) + eval_row(1, 3, 2.3) + eval_row(1, 4, 2.4);
  for (int step = 4; step <= 6; ++step) metrics += train_row(2, step, 20 + step);
  metrics += eval_row(2, 6, 1.6);
  const RunRecord run = read_run(write_run(place.path(), {.metrics = metrics}));
  ASSERT_EQ(run.train.size(), 6U);
  EXPECT_DOUBLE_EQ(run.train[2].train_loss, 13);
  EXPECT_DOUBLE_EQ(run.train[3].train_loss, 24);
  ASSERT_EQ(run.eval.size(), 3U);
  EXPECT_DOUBLE_EQ(run.eval[1].val_loss, 2.3);
  EXPECT_DOUBLE_EQ(run.eval[2].val_loss, 1.6);
}

// The third attempt went further back than the second, and validated where it started.
TEST(RunRecord, TheNewestOfSeveralAttemptsWins) {
  const TemporaryDirectory place;
  const std::string metrics = train_row(1, 1, 1) + train_row(1, 2, 1) + train_row(1, 3, 1) +
                              eval_row(1, 1, 1.1) + train_row(2, 3, 2) + train_row(2, 4, 2) +
                              eval_row(3, 1, 3.1) + train_row(3, 2, 3);
  const RunRecord run = read_run(write_run(place.path(), {.metrics = metrics}));
  ASSERT_EQ(run.train.size(), 2U);
  EXPECT_EQ(run.train[0].attempt, 1);
  EXPECT_EQ(run.train[1].attempt, 3);
  ASSERT_EQ(run.eval.size(), 1U);
  EXPECT_DOUBLE_EQ(run.eval[0].val_loss, 3.1);
}

TEST(RunRecord, ATornLastLineIsLeftOutAndSaid) {
  const TemporaryDirectory place;
  const std::string metrics = train_row(1, 1, 2.0) + R"({"kind":"train","att)";
  const RunRecord run = read_run(write_run(place.path(), {.metrics = metrics}));
  EXPECT_EQ(run.train.size(), 1U);
  ASSERT_EQ(run.notes.size(), 1U);
  EXPECT_NE(run.notes[0].find("torn"), std::string::npos);
}

// A resumed run appends behind the torn line: on the same line, or on one of its own.
TEST(RunRecord, ATornLineBeforeANewAttemptIsLeftOutAndSaid) {
  const TemporaryDirectory place;
  for (const char* torn : {R"({"kind":"tra)", "{\"kind\":\"tra\n"}) {
    const std::string metrics =
        train_row(1, 1, 2.0) + torn + train_row(2, 2, 3.0) + train_row(2, 3, 4.0);
    const RunRecord run = read_run(write_run(place.path(), {.metrics = metrics}));
    EXPECT_EQ(run.train.back().step, 3);
    EXPECT_EQ(run.notes.size(), 1U);
  }
}

TEST(RunRecord, ABadLineElsewhereIsAnErrorWithItsNumber) {
  const TemporaryDirectory place;
  const std::string metrics = train_row(1, 1, 2.0) + "{oops\n" + train_row(1, 2, 2.0);
  const std::string message = message_of(write_run(place.path(), {.metrics = metrics}));
  EXPECT_NE(message.find("line 2 of"), std::string::npos) << message;
}

TEST(RunRecord, MissingAndWrongFieldsAreNamed) {
  const TemporaryDirectory place;
  const auto run = write_run(place.path(), {.metrics = "{\"kind\":\"train\"}\n"});
  EXPECT_NE(message_of(run).find("lacks the field \"step\""), std::string::npos);
  write_text(run / "metrics.jsonl", "{\"kind\":\"train\",\"step\":\"two\"}\n");
  EXPECT_NE(message_of(run).find("\"step\" has the wrong type: \"two\""), std::string::npos);
  write_text(run / "run.json", "{");
  EXPECT_NE(message_of(run).find("run.json\" is not JSON"), std::string::npos);
}

TEST(RunRecord, ADirectoryWithoutRunJsonIsRefusedWithTheRemedy) {
  const TemporaryDirectory place;
  const std::string message = message_of(place.path());
  EXPECT_NE(message.find("holds no run.json"), std::string::npos);
  EXPECT_NE(message.find("convoy train --output"), std::string::npos);
}

}  // namespace
}  // namespace convoy
