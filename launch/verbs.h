// The verbs of the command line, one file each. A verb adds itself to the application with its
// options, an example, and what to run; errors are thrown and main reports them.
#pragma once

namespace CLI {
class App;
}

namespace convoy {

class MpiEnvironment;

// The exit code of a verb that ended without an error but not with success (75: interrupted).
struct ExitCode {
  int value = 0;
};

void add_prepare_verb(CLI::App& app);
void add_corpus_verb(CLI::App& app);
void add_tokenizer_verb(CLI::App& app);
void add_train_verb(CLI::App& app, const MpiEnvironment& mpi, ExitCode& exit_code);
void add_eval_verb(CLI::App& app, const MpiEnvironment& mpi);
void add_inspect_verb(CLI::App& app);
void add_sample_verb(CLI::App& app);
void add_plan_verb(CLI::App& app);
void add_bench_verb(CLI::App& app);

}  // namespace convoy
