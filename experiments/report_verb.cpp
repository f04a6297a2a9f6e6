#include "experiments/report_verb.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "core/error.h"
#include "experiments/report.h"
#include "experiments/sweep_report/page.h"

namespace convoy {
namespace {

void report_verb_main(const ReportOptions& options) {
  for (const auto& path : options.runs) {
    if (!is_sweep(path)) continue;
    if (options.runs.size() > 1)
      throw Error(concat(path.string(),
                         " is a sweep, and a sweep is reported alone: give it "
                         "without other directories"));
    if (options.format == ReportFormat::json)
      throw Error(
          concat("--json is for runs; the numbers of a sweep are printed by `convoy compare ",
                 (path / "runs.csv").string(), " --json` and `convoy fit`"));
    report_sweep(path, options.output.empty() ? "" : options.output / "report.html", std::cout);
    return;
  }
  report_main(options, std::cout);
}

}  // namespace

void add_report_verb(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("report", "Compare runs, or show a whole sweep, on one page");
  const auto options = std::make_shared<ReportOptions>();
  const auto json = std::make_shared<bool>(false);
  verb->add_option("runs", options->runs,
                   "Run directories, the first one's architecture the reference; or the output "
                   "folder of one sweep; or a table of runs")
      ->required()
      ->type_name("RUN|SWEEP");
  verb->add_option("--output", options->output,
                   "Runs: write loss_curves.svg, loss_by_tokens.svg, report.html and report.json "
                   "here. A sweep: report.html (default: the sweep's folder)")
      ->type_name("DIR");
  verb->add_flag("--json", *json, "Print the same numbers as JSON");
  verb->footer(
      "Example:\n"
      "  convoy report runs/plain_0 runs/conv_0 --output runs/report\n"
      "  convoy report runs/quickstart_sweep\n"
      "Runs of one architecture with different seeds form an arm; arms are compared seed by seed.");
  verb->callback([options, json] {
    options->format = *json ? ReportFormat::json : ReportFormat::table;
    report_verb_main(*options);
  });
}

}  // namespace convoy
