// The verb `report` on the command line.
#pragma once

namespace CLI {
class App;
}

namespace convoy {

void add_report_verb(CLI::App& app);

}  // namespace convoy
