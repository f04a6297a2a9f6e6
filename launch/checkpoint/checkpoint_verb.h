#pragma once

namespace CLI {
class App;
}

namespace convoy {

// convoy checkpoint info|verify|export DIR
void add_checkpoint_verb(CLI::App& app);

}  // namespace convoy
