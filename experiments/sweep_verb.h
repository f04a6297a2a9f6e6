// The verb `sweep` on the command line: plan, run, submit, status, export and report of a
// manifest.
#pragma once

namespace CLI {
class App;
}

namespace convoy {

struct ExitCode;

void add_sweep_verb(CLI::App& app, ExitCode& exit_code);

}  // namespace convoy
