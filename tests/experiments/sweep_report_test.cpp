// The page of a sweep: complete, alone, and honest about what it lacks.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "core/error.h"
#include "experiments/fit/fit_words.h"
#include "experiments/fit/minimize.h"
#include "experiments/sweep_report/isoflop.h"
#include "experiments/sweep_report/page.h"
#include "tests/experiments/sweep_folder.h"

namespace convoy {
namespace {

using testing::planted_ladder;
using testing::read_text;
using testing::study_of_runs;
using testing::TemporaryDirectory;
using testing::write_sweep;
using testing::write_text;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<RunRow> ladder() {
  return planted_ladder(1.33, {.budgets = 5, .seeds = 3, .seed_sd = 0.003}, 7);
}

struct Reported {
  SweepData data;
  SweepAnalysis analysis = {};
  std::string page = {};
};

Reported report_of(const std::filesystem::path& source) {
  Reported result{.data = read_sweep(source)};
  result.analysis = analyse(result.data);
  result.page = sweep_page(result.data, result.analysis);
  return result;
}

// Of the run named, the reason why it is left out; empty: it is not.
std::string reason_of(const SweepAnalysis& analysis, const std::string& run) {
  for (const ExcludedRun& excluded : analysis.exclusions)
    if (excluded.run == run) return excluded.reason;
  return "";
}

std::string refusal(const std::filesystem::path& source) {
  try {
    read_sweep(source);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(SweepReport, ThePageHasEverySectionAndEveryRunWithItsCommand) {
  const TemporaryDirectory place;
  const auto runs = ladder();
  const Reported report = report_of(write_sweep(place.path() / "s", runs, study_of_runs(runs)));
  for (const char* id : {"summary", "curves", "isoflop", "fits", "advantage", "residuals",
                         "throughput", "checklist", "exclusions", "runs"})
    EXPECT_TRUE(has(report.page, concat("<section id=\"", id, "\">"))) << id;
  for (const char* plot :
       {"plot-curves", "plot-fit", "plot-advantage", "plot-residuals", "plot-throughput"})
    EXPECT_TRUE(has_minimizer() == false || has(report.page, concat("id=\"", plot, "\""))) << plot;
  for (const RunRow& run : runs) {
    EXPECT_TRUE(has(report.page, "<td>name-of-" + run.run_id + "</td>")) << run.run_id;
    EXPECT_TRUE(has(report.page, "<code>convoy train " + run.run_id + "/planned.toml</code>"));
  }
  EXPECT_TRUE(has(report.page, "planted &lt;ladder&gt;"));
  EXPECT_FALSE(has(report.page, "planted <ladder>"));
}

TEST(SweepReport, ThePageNeedsNothingFromOutside) {
  const TemporaryDirectory place;
  const auto runs = ladder();
  const std::string page =
      report_of(write_sweep(place.path() / "s", runs, study_of_runs(runs))).page;
  for (const char* outside : {"http://", "https://", "src=", "@import", "<link", "<img", "fetch(",
                              "XMLHttpRequest", "import "})
    EXPECT_FALSE(has(page, outside)) << outside;
  EXPECT_TRUE(has(page, "default-src 'none'"));
}

TEST(SweepReport, APlantedAdvantageStandsThereWithItsInterval) {
  if (!has_minimizer()) GTEST_SKIP() << "built without Ceres";
  const TemporaryDirectory place;
  const auto runs = ladder();
  const Reported report = report_of(write_sweep(place.path() / "s", runs, study_of_runs(runs)));
  ASSERT_TRUE(report.analysis.comparison) << report.analysis.no_comparison;
  EXPECT_EQ(report.analysis.comparison->reference, "plain");
  const Advantage& m = report.analysis.comparison->arms.at(0).joint.advantage;
  ASSERT_TRUE(m.interval);
  EXPECT_LT(m.interval->low, 1.33);
  EXPECT_GT(m.interval->high, 1.33);
  EXPECT_TRUE(has(report.page, advantage_text(m)));
  for (const ArmFit& arm : report.analysis.fits) {
    ASSERT_TRUE(arm.fit) << arm.refusal;
    EXPECT_TRUE(arm.fit->held_out);
    EXPECT_TRUE(arm.fit->curve.at(0).mean);
  }
}

TEST(SweepReport, WithTooFewPointsItGivesNoAdvantageAndSaysWhy) {
  if (!has_minimizer()) GTEST_SKIP() << "built without Ceres";
  const TemporaryDirectory place;
  const auto runs = planted_ladder(1.33, {.budgets = 2, .seeds = 1}, 1);
  const Reported report = report_of(write_sweep(place.path() / "s", runs, study_of_runs(runs)));
  const Advantage& m = report.analysis.comparison->arms.at(0).joint.advantage;
  EXPECT_FALSE(m.interval);
  ASSERT_FALSE(m.note.empty());
  EXPECT_TRUE(
      has(report.page, "conv: no compute advantage over plain is given, because " + m.note));
  EXPECT_TRUE(has(report.page, "No fit: "));
  EXPECT_TRUE(has(report.page, "No residuals: there is no fit."));
}

TEST(SweepReport, EveryRunThatIsLeftOutIsNamedWithItsReason) {
  const TemporaryDirectory place;
  auto runs = ladder();
  Study study = study_of_runs(runs);
  runs[0].status = study.runs[0].state = "diverged";
  study.runs[0].message = "the loss was not finite at step 7";
  runs[1].status = study.runs[1].state = "interrupted";
  RunRow twin = runs[2];
  twin.run_id = "twin";
  runs.push_back(twin);
  StudyRun planned = study.runs[3];
  planned.id = planned.name = "not-yet";
  planned.state = "planned";
  study.runs.push_back(planned);
  const Reported report = report_of(write_sweep(place.path() / "s", runs, study));
  const auto name = [&](std::size_t i) { return "name-of-" + runs[i].run_id; };
  EXPECT_EQ(reason_of(report.analysis, name(0)), "diverged: the loss was not finite at step 7");
  EXPECT_EQ(reason_of(report.analysis, name(1)), "unfinished: its status is interrupted");
  EXPECT_TRUE(has(reason_of(report.analysis, "twin"), "duplicate of " + name(2)));
  EXPECT_EQ(reason_of(report.analysis, "not-yet"), "planned, never started");
  EXPECT_EQ(report.analysis.exclusions.size(), 4U);
  for (const ExcludedRun& excluded : report.analysis.exclusions)
    EXPECT_TRUE(has(report.page, "<li><b>" + excluded.run + "</b>: " + excluded.reason));
}

TEST(SweepReport, OfSeveralLearningRatesTheBestStaysAndAnEdgeIsWarnedOf) {
  const TemporaryDirectory place;
  const auto runs = ladder();
  const auto folder = write_sweep(place.path() / "s", runs, study_of_runs(runs));
  std::string table = read_text(folder / "runs.csv");
  // The first run again at twice the rate, with a higher loss.
  const std::string row =
      table.substr(table.find('\n') + 1, table.find('\n', table.find('\n') + 1) - table.find('\n'));
  std::string other = row;
  other.replace(0, other.find(','), "fast");
  other.replace(other.find(",parts,"), other.find(",0.001,") - other.find(",parts,"), ",parts,9.5");
  other.replace(other.find(",0.001,"), 7, ",0.002,");
  write_text(folder / "runs.csv", table + other);
  const Reported report = report_of(folder);
  EXPECT_EQ(reason_of(report.analysis, "fast"),
            "its learning rate 0.002 is not the best of 2 tried: 0.001 is");
  ASSERT_EQ(report.analysis.lr_warnings.size(), 1U);
  EXPECT_TRUE(has(report.analysis.lr_warnings[0], "0.001, is at the edge of those tried"));
}

TEST(SweepReport, WhatIsMissingIsSaidAndNothingIsInvented) {
  const TemporaryDirectory place;
  const auto runs = ladder();
  const auto folder = write_sweep(place.path() / "s", runs, study_of_runs(runs));
  std::filesystem::remove(folder / "curves.csv");
  std::filesystem::remove(folder / "study.json");
  const Reported report = report_of(folder);
  EXPECT_TRUE(has(report.page, "curves.csv is not beside the table of runs"));
  EXPECT_TRUE(has(report.page, "study.json is not beside the tables"));
  EXPECT_TRUE(has(report.page, "No loss curves"));
  EXPECT_TRUE(has(report.page, "No throughput"));
  EXPECT_TRUE(has(report.page, "without study.json the budgets are not known"));
  EXPECT_FALSE(has(report.page, "id=\"plot-curves\""));
  EXPECT_EQ(report.data.name, "s");
}

TEST(SweepReport, BadInputIsRefusedWithTheRemedy) {
  const TemporaryDirectory place;
  const auto runs = ladder();
  EXPECT_TRUE(has(refusal(place.path() / "nowhere"), "does not exist"));
  EXPECT_TRUE(has(refusal(place.path()), "holds no runs.csv"));
  const auto folder = write_sweep(place.path() / "s", runs, study_of_runs(runs));
  EXPECT_EQ(refusal(folder), "");
  write_text(folder / "curves.csv", "run_id,tokens\nx,1\n");
  EXPECT_TRUE(has(refusal(folder), "lacks the columns flops, wall_s, train_loss"));
  write_text(folder / "curves.csv", testing::curves_csv(runs) + "x,1\n");
  EXPECT_TRUE(has(refusal(folder), "has 2 cells, and there are 9 headings"));
  write_text(folder / "study.json", "{");
  EXPECT_TRUE(has(refusal(folder), "study.json is not JSON"));
  write_text(folder / "study.json", R"({"schema": 2})");
  EXPECT_TRUE(has(refusal(folder), "has schema 2, and this program reads 1"));
}

TEST(SweepReport, ATableAloneNeedsAPlaceForThePage) {
  const TemporaryDirectory place;
  write_text(place.path() / "t.csv", testing::runs_csv(ladder()));
  std::ostringstream out;
  EXPECT_TRUE(is_sweep(place.path() / "t.csv"));
  EXPECT_THROW(report_sweep(place.path() / "t.csv", "", out), Error);
  report_sweep(place.path() / "t.csv", place.path() / "page" / "report.html", out);
  EXPECT_TRUE(has(out.str(), "30 runs, 30 of them in the fits, 0 left out"));
  EXPECT_TRUE(has(read_text(place.path() / "page" / "report.html"), "</html>"));
}

TEST(SweepReport, AStudyComesBackAsItWasWritten) {
  const TemporaryDirectory place;
  const Study study = study_of_runs(ladder());
  write_text(place.path() / "study.json", to_json(study));
  EXPECT_EQ(to_json(read_study(place.path() / "study.json")), to_json(study));
}

std::vector<Unit> isoflop_units(double best_n, const std::vector<double>& sizes) {
  std::vector<Unit> units;
  for (const double n : sizes) {
    const double x = std::log(n / best_n);
    units.push_back({.N = n, .D = 1e9 / n, .C = 6e9, .log_loss = std::log(3 + 0.1 * x * x)});
  }
  return units;
}

TEST(Isoflop, ThePlantedBestSizeComesBack) {
  const auto profile = isoflop_profile("a", 6e9, isoflop_units(2e4, {5e3, 1e4, 3e4, 8e4}));
  ASSERT_EQ(profile.note, "");
  EXPECT_NEAR(profile.best_n / 2e4, 1, 1e-9);
  EXPECT_NEAR(profile.best_loss, 3, 1e-9);
  EXPECT_NEAR(profile.best_d / (1e9 / 2e4), 1, 1e-9);
  ASSERT_TRUE(profile.best_n_interval);
  EXPECT_NEAR(profile.best_n_interval->high / profile.best_n_interval->low, 1, 1e-6);
}

TEST(Isoflop, ABestSizeBeyondThoseTriedIsNotClaimed) {
  const auto profile = isoflop_profile("a", 6e9, isoflop_units(2e4, {3e4, 5e4, 8e4}));
  EXPECT_TRUE(has(profile.note, "beyond the smallest size tried")) << profile.note;
  EXPECT_TRUE(std::isnan(profile.best_n));
  EXPECT_TRUE(has(isoflop_profile("a", 6e9, isoflop_units(2e4, {1e4, 3e4})).note, "too few sizes"));
}

TEST(Frontier, ItIsTheLeastLossAtItsCompute) {
  if (!has_minimizer()) GTEST_SKIP() << "built without Ceres";
  const FitResult result = fit(testing::planted_grid(), {.holdout = false});
  ASSERT_FALSE(result.curve.empty());
  for (const Prediction& point : result.curve) {
    EXPECT_NEAR(point.C / (6 * point.N * point.D), 1, 1e-9);
    for (const double factor : {0.9, 1.1})
      EXPECT_LT(point.predicted, testing::chinchilla_loss(point.N * factor, point.D / factor));
  }
  const double last = result.points.back().C;
  EXPECT_NEAR(result.curve.back().C / last, 3, 1e-9);
}

}  // namespace
}  // namespace convoy
