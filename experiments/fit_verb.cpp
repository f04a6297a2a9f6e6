#include "experiments/fit_verb.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "core/error.h"
#include "experiments/fit/fit_report.h"

namespace convoy {
namespace {

struct TableOptions {
  std::vector<std::string> tables;
  std::vector<std::string> columns;
  bool json = false;
};

struct FitVerb : TableOptions {
  FitOptions fit;
  std::string law;
  std::string loss = "huber";
  std::string arch;
  std::string holdout = "largest";
  int drop_largest = 0;
};

struct CompareVerb : TableOptions {
  CompareOptions compare;
  std::string speeds;
};

void add_table_options(CLI::App& verb, TableOptions& options) {
  verb.add_option("tables", options.tables,
                  "Runs, as CSV or JSON lines (.jsonl); several tables count as one")
      ->required()
      ->type_name("TABLE");
  verb.add_option(
          "--column", options.columns,
          "Read a field from a column of your own, as in N=\"Non-embedding params\". Fields: "
          "N D C loss arch size seed status run_id wall_s ranks device_hours device")
      ->type_name("FIELD=HEADING")
      ->allow_extra_args(false);
  verb.add_flag("--json", options.json, "Print the same numbers as JSON");
}

Runs read_table(const TableOptions& options) {
  ColumnChoice columns;
  for (const std::string& choice : options.columns) {
    const auto equals = choice.find('=');
    if (equals == std::string::npos)
      throw Error(concat("--column ", choice, ": write FIELD=HEADING, as in N=params"));
    columns[choice.substr(0, equals)] = choice.substr(equals + 1);
  }
  return read_runs(options.tables, columns);
}

void fit_main(FitVerb& options) {
  if (!has_minimizer()) minimize({}, {});  // throws the remedy before anything is read
  options.fit.law = options.law == "power" ? LawKind::power : LawKind::chinchilla;
  options.fit.loss = options.loss == "mse" ? Loss::mse : Loss::huber;
  options.fit.holdout = options.holdout == "largest";
  const Runs table = read_table(options);
  Screened screened = screen(table.rows);
  screened.runs = runs_of_arm(screened.runs, options.arch);
  drop_largest_losses(screened, options.drop_largest);
  const FitResult result = fit(screened.runs, options.fit);
  if (options.json) {
    std::cout << fit_json(result, screened.exclusions);
    return;
  }
  print_fit(std::cout, result, screened.exclusions);
  for (const std::string& note : table.notes) std::cout << "  note: " << note << '\n';
}

void compare_main(CompareVerb& options) {
  if (!has_minimizer()) minimize({}, {});
  if (!options.speeds.empty()) options.compare.speeds = read_speeds(options.speeds);
  const ArmComparison result = compare_arms(read_table(options), options.compare);
  if (options.json)
    std::cout << compare_json(result);
  else
    print_comparison(std::cout, result);
}

}  // namespace

void add_fit_verb(CLI::App& app) {
  CLI::App* verb = app.add_subcommand("fit", "Fit a scaling law to a table of runs");
  const auto options = std::make_shared<FitVerb>();
  add_table_options(*verb, *options);
  verb->add_option("--law", options->law,
                   "chinchilla: L(N,D) = E + A/N^alpha + B/D^beta; power: L(C) = E + K C^-gamma")
      ->required()
      ->check(CLI::IsMember({"chinchilla", "power"}));
  verb->add_option("--loss", options->loss, "huber (sum of Huber(1e-3) of ln loss) or mse")
      ->check(CLI::IsMember({"huber", "mse"}))
      ->capture_default_str();
  verb->add_option("--holdout", options->holdout,
                   "largest: also predict the largest size from the others; none: do not")
      ->check(CLI::IsMember({"largest", "none"}))
      ->capture_default_str();
  verb->add_option("--arch", options->arch, "The arm to fit, where the table has several");
  verb->add_option("--bootstrap", options->fit.resamples,
                   "Resamples, where there are more than 30 sizes")
      ->check(CLI::Range(2, 1000000))
      ->capture_default_str();
  verb->add_option("--drop-largest-losses", options->drop_largest,
                   "Leave out this many runs of the largest loss")
      ->check(CLI::NonNegativeNumber);
  verb->footer(
      "Example:\n"
      "  convoy fit runs.csv --law chinchilla --json\n"
      "Headings such as params, Model Size, tokens, Training FLOP and val_loss are understood.\n"
      "Unfinished, diverged and duplicate runs are left out and named.");
  verb->callback([options] { fit_main(*options); });
}

void add_compare_verb(CLI::App& app) {
  CLI::App* verb =
      app.add_subcommand("compare", "Compute advantage of each arm of a table over a reference");
  const auto options = std::make_shared<CompareVerb>();
  add_table_options(*verb, *options);
  verb->add_option("--reference", options->compare.reference,
                   "The arm to compare with (default: that of the first row)")
      ->type_name("ARM");
  verb->add_option("--order", options->compare.expected,
                   "Arms from the lowest loss to the highest: is each pair ordered, reversed or "
                   "tied? (default: as observed)")
      ->delimiter(',')
      ->type_name("ARM,ARM...");
  verb->add_option("--speeds", options->speeds,
                   "Take FLOP/s for the clock from this table of convoy sweep time, not from the "
                   "runs")
      ->type_name("SPEEDS.csv");
  verb->footer(
      "Example:\n"
      "  convoy compare runs.csv --reference transformer\n"
      "M = C_reference / C_arm at equal loss, with a 95 % interval whose unit is the mean over "
      "the\n"
      "seeds of one size.");
  verb->callback([options] { compare_main(*options); });
}

}  // namespace convoy
