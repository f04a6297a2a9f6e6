// The verbs `fit` and `compare` on the command line: laws and arms from anybody's table of runs.
#pragma once

namespace CLI {
class App;
}

namespace convoy {

void add_fit_verb(CLI::App& app);
void add_compare_verb(CLI::App& app);

}  // namespace convoy
