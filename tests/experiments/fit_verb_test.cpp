#include "experiments/fit_verb.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "experiments/fit/minimize.h"
#include "tests/experiments/planted_runs.h"
#include "tests/experiments/run_directory.h"

namespace convoy {
namespace {

class FitVerbs : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_minimizer()) GTEST_SKIP() << "built without Ceres";
  }

  // Writes the runs as the project's own table and returns its path.
  std::string write(const std::vector<RunRow>& runs) {
    std::ostringstream text;
    text.precision(17);
    text << "run_id,arch,size,seed,status,N,D,C,val_loss,wall_s,device\n";
    for (const RunRow& run : runs)
      text << run.run_id << ',' << run.arch << ',' << run.size << ',' << run.seed.value_or(0) << ','
           << run.status << ',' << run.N << ',' << run.D << ',' << run.C << ',' << run.loss << ','
           << run.C / 1e12 << ",cpu\n";
    const auto path = place_.path() / "runs.csv";
    testing::write_text(path, text.str());
    return path.string();
  }

  static std::string run_verb(const std::string& line) {
    CLI::App app;
    add_fit_verb(app);
    add_compare_verb(app);
    ::testing::internal::CaptureStdout();
    try {
      app.parse(line);
    } catch (...) {
      ::testing::internal::GetCapturedStdout();
      throw;
    }
    return ::testing::internal::GetCapturedStdout();
  }

  testing::TemporaryDirectory place_;
};

TEST_F(FitVerbs, FitPrintsEveryFieldAsJson) {
  const auto json = nlohmann::json::parse(
      run_verb("fit " + write(testing::planted_grid()) + " --law chinchilla --json"));
  EXPECT_NEAR(json.at("E").get<double>(), 1.69, 1.69e-6);
  for (const char* name : {"E", "A", "B", "alpha", "beta"}) {
    EXPECT_TRUE(json.at(name).is_number()) << name;
    EXPECT_EQ(json.at("intervals").at(name).size(), 2U) << name;
  }
  EXPECT_LT(json.at("objective").get<double>(), 1e-15);
  EXPECT_EQ(json.at("converged"), true);
  EXPECT_EQ(json.at("starts_agreeing"), json.at("starts"));
  EXPECT_TRUE(json.at("warnings").empty());
}

TEST_F(FitVerbs, FitOfALadderIsAPowerLaw) {
  const std::string path = write(testing::planted_ladder(1.33, {.seed_sd = 0.003}, 0));
  EXPECT_THROW(run_verb("fit " + path + " --law power"), Error);
  EXPECT_THROW(run_verb("fit " + path + " --law chinchilla --arch plain"), Error);
  const auto json = nlohmann::json::parse(
      run_verb("fit " + path + " --law power --loss mse --arch plain --json"));
  EXPECT_EQ(json.at("points"), 5);
  EXPECT_EQ(json.at("runs"), 15);
  EXPECT_TRUE(json.at("gamma").is_number());
  EXPECT_TRUE(json.at("held_out").at("predicted").is_number()) << json.dump(1);
}

TEST_F(FitVerbs, FitPrintsATableForPeople) {
  const std::string path = write(testing::planted_grid());
  const std::string text = run_verb("fit " + path + " --law chinchilla");
  for (const char* part : {"L(N, D) = E + A/N^alpha + B/D^beta", "108 of 108 starts agree", "alpha",
                           "held out", "10 x the largest C"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
}

// Losses that no falling curve fits drive the line searches into corners that Ceres remarks on.
TEST_F(FitVerbs, FitSaysNothingBesideItsResult) {
  std::vector<RunRow> runs;
  for (const double loss : {3.9593126018696343, 2.6, 3.365531803931983, 3.0564696007321044}) {
    const double C = 1e12 * std::pow(10, 0.35 * static_cast<double>(runs.size()));
    runs.push_back({.run_id = concat("r", runs.size()), .arch = "a", .status = "done"});
    RunRow& run = runs.back();
    run.size = concat("s", runs.size());
    run.N = 1e4 * static_cast<double>(runs.size());
    run.C = C;
    run.D = C / 6 / run.N;
    run.loss = loss;
  }
  ::testing::internal::CaptureStderr();
  const std::string text = run_verb("fit " + write(runs) + " --law power");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_FALSE(text.empty());
}

TEST_F(FitVerbs, CompareGivesAnAdvantageForEveryArmAndBudget) {
  auto runs = testing::planted_ladder(1.60, {.seed_sd = 0.001}, 4);
  runs[3].status = "diverged";
  const std::string path = write(runs);
  const auto json =
      nlohmann::json::parse(run_verb("compare " + path + " --reference plain --json"));
  const auto& arm = json.at("arms").at(0);
  EXPECT_EQ(arm.at("arm"), "conv");
  EXPECT_NEAR(arm.at("advantage").at("estimate").get<double>(), 1.6, 0.05);
  EXPECT_LT(arm.at("advantage").at("low").get<double>(), 1.6);
  EXPECT_GT(arm.at("advantage").at("high").get<double>(), 1.6);
  EXPECT_EQ(arm.at("advantage").at("method"), "joint");
  ASSERT_EQ(arm.at("budgets").size(), 5U);
  for (const auto& budget : arm.at("budgets"))
    EXPECT_EQ(budget.at("advantage").at("method"), "separate");
  EXPECT_EQ(json.at("excluded").at(0).at("reason"), "diverged");
  EXPECT_EQ(json.at("orderings").at(0).at("better"), "conv");
  const std::string text = run_verb("compare " + path + " --reference plain");
  for (const char* part : {"conv against plain", "compute advantage (joint fit): 1.",
                           "on the clock", "ordered", "left out: plain", "seed noise"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
}

TEST_F(FitVerbs, CompareTakesTheClockFromATableOfSpeeds) {
  auto runs = testing::planted_ladder(1.60, {.seed_sd = 0.001}, 4);
  const std::string path = write(runs);
  const auto clock = [&](const std::string& speeds) {
    const auto file = place_.path() / "speeds.csv";
    testing::write_text(file, speeds);
    const auto json = nlohmann::json::parse(
        run_verb("compare " + path + " --reference plain --json --speeds " + file.string()));
    EXPECT_EQ(json.at("speeds"), file.string());
    return json.at("arms").at(0);
  };
  std::string rows = "size,arch,flops_per_s,device\n";
  for (const RunRow& run : runs)
    if (run.seed == 0)
      rows += concat(run.size, ",", run.arch, ",", run.arch == "conv" ? 3e12 : 4e12, ",card\n");
  const auto arm = clock(rows);
  const double m = arm.at("advantage").at("estimate").get<double>();
  EXPECT_NEAR(arm.at("wall_clock_advantage").at("estimate").get<double>(), 0.75 * m, 1e-9);
  EXPECT_NEAR(arm.at("sizes").at(0).at("flops_per_second_ratio").get<double>(), 0.75, 1e-12);

  const auto none = clock("arch,size,flops_per_s\nplain,elsewhere,1e12\n");
  EXPECT_TRUE(none.at("wall_clock_advantage").at("estimate").is_null());
  EXPECT_NE(none.dump().find("has no size of both arms"), std::string::npos) << none.dump(1);

  const std::string table = "arch,size,flops_per_s,device\na,s,1e12,x\n";
  for (const auto& [more, error] : std::vector<std::pair<std::string, std::string>>{
           {"a,s,2e12,x\n", "a at s stands twice"},
           {"b,s,2e12,y\n", "speeds of several devices"},
           {"b,s,-1,x\n", "write a positive number"},
           {"b,s,2e12\n", "has 3 cells, and there are 4 headings"}}) {
    try {
      clock(table + more);
      ADD_FAILURE() << "it took " << more;
    } catch (const Error& refused) {
      EXPECT_NE(std::string(refused.what()).find(error), std::string::npos) << refused.what();
    }
  }
  EXPECT_THROW(clock("arch,size,tokens_per_s\na,s,1\n"), Error);
}

TEST(FitVerb, WithoutCeresTheVerbSaysWhatToInstall) {
  if (has_minimizer()) GTEST_SKIP() << "built with Ceres";
  CLI::App app;
  add_fit_verb(app);
  try {
    app.parse("fit nowhere.csv --law power");
    FAIL() << "it ran";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "built without Ceres; install libceres-dev, configure and build again");
  }
}

}  // namespace
}  // namespace convoy
