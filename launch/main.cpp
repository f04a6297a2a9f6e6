// The binary: a table of verbs. The one file that includes every level.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "experiments/fit_verb.h"
#include "experiments/report_verb.h"
#include "experiments/sweep_verb.h"
#include "launch/checkpoint/checkpoint_verb.h"
#include "launch/environment.h"
#include "launch/verbs.h"
#include "parallel/mpi.h"

namespace {

int run(int argc, char** argv, const convoy::MpiEnvironment& mpi) {
  CLI::App app(
      "Convoy trains and judges language models with dynamic short convolutions.\n"
      "Start with launch/quickstart, or: convoy VERB --help");
  app.set_version_flag("--version", convoy::program_version() + " " + convoy::source_revision());
  app.require_subcommand(1);
  convoy::ExitCode exit_code;
  convoy::add_prepare_verb(app);
  convoy::add_corpus_verb(app);
  convoy::add_tokenizer_verb(app);
  convoy::add_train_verb(app, mpi, exit_code);
  convoy::add_eval_verb(app, mpi);
  convoy::add_sample_verb(app);
  convoy::add_inspect_verb(app);
  convoy::add_plan_verb(app);
  convoy::add_checkpoint_verb(app);
  convoy::add_bench_verb(app);
  convoy::add_compare_verb(app);
  convoy::add_fit_verb(app);
  convoy::add_report_verb(app);
  convoy::add_sweep_verb(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return exit_code.value;
}

}  // namespace

int main(int argc, char** argv) {
  convoy::MpiEnvironment mpi;
  try {
    return run(argc, argv, mpi);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "convoy: %s\n", error.what());
    if (mpi.launched()) mpi.abort(1);
    return 1;
  }
}
