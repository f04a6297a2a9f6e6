#include "experiments/report_verb.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "experiments/report.h"

namespace convoy {

void add_report_verb(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("report", "Compare runs: a table, two pictures and a page");
  const auto options = std::make_shared<ReportOptions>();
  const auto json = std::make_shared<bool>(false);
  verb->add_option("runs", options->runs,
                   "Run directories; the first one's architecture is the reference")
      ->required()
      ->type_name("RUN");
  verb->add_option("--output", options->output,
                   "Write loss_curves.svg, loss_by_tokens.svg, report.html and report.json here")
      ->type_name("DIR");
  verb->add_flag("--json", *json, "Print the same numbers as JSON");
  verb->footer(
      "Example:\n"
      "  convoy report runs/plain_0 runs/conv_0 --output runs/report\n"
      "Runs of one architecture with different seeds form an arm; arms are compared seed by seed.");
  verb->callback([options, json] {
    options->format = *json ? ReportFormat::json : ReportFormat::table;
    report_main(*options, std::cout);
  });
}

}  // namespace convoy
