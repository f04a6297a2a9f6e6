#include "experiments/report.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "experiments/loss_charts.h"
#include "experiments/report_verb.h"
#include "tests/experiments/run_directory.h"
#include "tests/experiments/xml_check.h"

namespace convoy {
namespace {

using testing::eval_row;
using testing::read_text;
using testing::TemporaryDirectory;
using testing::train_row;
using testing::write_run;
using testing::xml_fault;

std::string ten_steps(double last_loss) {
  std::string metrics;
  for (int step = 1; step <= 10; ++step)
    metrics += train_row(1, step, last_loss + 0.1 * (10 - step), step <= 5 ? 10 : 1000 + step);
  return metrics + eval_row(1, 5, last_loss + 0.5) + eval_row(1, 10, last_loss);
}

// Two arms with two seeds each, and one run that failed.
ReportOptions example(const TemporaryDirectory& place) {
  ReportOptions options{.runs = {}, .output = place.path() / "report"};
  const auto add = [&](const testing::RunFiles& files) {
    options.runs.push_back(write_run(place.path(), files));
  };
  for (const int seed : {0, 1}) {
    const double plain = 1.5 + 0.01 * seed;
    const std::string number = std::to_string(seed);
    add({.name = "plain_" + number, .seed = seed, .val_loss = plain, .metrics = ten_steps(plain)});
    add({.name = "conv_" + number,
         .arch = "lowrank <q,k,v>",
         .seed = seed,
         .val_loss = 1.4,
         .metrics = ten_steps(1.4)});
  }
  add({.name = "broken", .status = "failed"});
  return options;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Report, TheTableHoldsTheNumbersOfEveryRun) {
  const TemporaryDirectory place;
  std::ostringstream out;
  EXPECT_EQ(report_main(example(place), out), 0);
  const std::string text = out.str();
  EXPECT_TRUE(has(
      text,
      "plain_0     0     793,728     10  10,000         1.00e10       1.5000     2.1640     1,008"))
      << text;
  EXPECT_TRUE(has(text, "Paired differences from transformer"));
  EXPECT_TRUE(has(text, "-0.1050")) << text;
  EXPECT_TRUE(has(text, "left out: broken: failed at step 1")) << text;
}

TEST(Report, ThePicturesAreWellFormedXml) {
  const TemporaryDirectory place;
  const ReportOptions options = example(place);
  std::ostringstream out;
  report_main(options, out);
  for (const char* name : {"loss_curves.svg", "loss_by_tokens.svg"}) {
    EXPECT_EQ(xml_fault(read_text(options.output / name)), "") << name;
    EXPECT_TRUE(has(out.str(), name));
  }
}

TEST(Report, ARunValidatedOnlyAtItsEndStillHasACurve) {
  const TemporaryDirectory place;
  std::string metrics;
  for (int step = 1; step <= 40; ++step) metrics += train_row(1, step, 3.0 - 0.05 * step);
  const auto run = write_run(place.path(), {.metrics = metrics + eval_row(1, 40, 1.0)});
  const Chart chart = loss_chart(compare({read_run(run)}), LossAgainst::flops);
  ASSERT_EQ(chart.series.size(), 2U);
  EXPECT_EQ(chart.series[0].points.size(), 39U);  // all but the first 5 % of the way
  EXPECT_EQ(chart.series[1].points.size(), 1U);
}

TEST(Report, ThePageNeedsNothingFromOutside) {
  const TemporaryDirectory place;
  const ReportOptions options = example(place);
  std::ostringstream out;
  report_main(options, out);
  const std::string page = read_text(options.output / "report.html");
  for (const char* outside : {"http", "src=", "href=", "url(", "@import", "<script", "<link"})
    EXPECT_FALSE(has(page, outside)) << outside;
  EXPECT_TRUE(has(page, "<svg "));
  EXPECT_TRUE(has(page, "lowrank &lt;q,k,v&gt;"));
  EXPECT_TRUE(has(page, "a &lt; b &amp; c"));
  EXPECT_TRUE(has(page, "failed at step 1"));
}

TEST(Report, JsonHoldsTheSameNumbers) {
  const TemporaryDirectory place;
  ReportOptions options = example(place);
  options.format = ReportFormat::json;
  std::ostringstream out;
  report_main(options, out);
  const auto json = nlohmann::json::parse(out.str());
  EXPECT_EQ(json["runs"].size(), 5U);
  EXPECT_EQ(json["runs"][0]["tokens_per_s"], 1008);
  EXPECT_EQ(json["arms"][0]["val_loss"]["n"], 2);
  EXPECT_NEAR(json["differences"][0]["val_loss"]["mean"].get<double>(), -0.105, 1e-12);
  EXPECT_EQ(json["excluded"][0]["run"], "broken");
  EXPECT_EQ(out.str(), read_text(options.output / "report.json"));
}

TEST(Report, WithoutAFinishedRunItSaysSoAndDrawsNothing) {
  const TemporaryDirectory place;
  const auto run = write_run(place.path(), {.status = "interrupted"});
  const ReportOptions options{.runs = {run}, .output = place.path() / "report"};
  std::ostringstream out;
  EXPECT_EQ(report_main(options, out), 0);
  EXPECT_TRUE(has(out.str(), "interrupted at step 1"));
  EXPECT_FALSE(std::filesystem::exists(options.output / "loss_curves.svg"));
  EXPECT_TRUE(has(read_text(options.output / "report.html"), "No run has finished yet"));
}

TEST(Report, TheVerbExplainsItselfWithAnExample) {
  CLI::App app;
  add_report_verb(app);
  const std::string help = app.get_subcommand("report")->help();
  EXPECT_TRUE(has(help, "Example:\n  convoy report"));
  EXPECT_TRUE(has(help, "--json"));
}

}  // namespace
}  // namespace convoy
