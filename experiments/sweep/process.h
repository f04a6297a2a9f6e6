// Child processes of a sweep: started with their output in a file, asked to stop, waited for.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace convoy {

struct ProcessSpec {
  std::vector<std::string> command;
  std::map<std::string, std::string> environment;  // added to this process's own
  std::filesystem::path log;                       // both streams, appended
  int inherited = -1;                              // a descriptor that the child keeps open
};

// The child has a process group of its own, so that a terminal's Ctrl-C reaches it only through us,
// and is asked to stop (SIGTERM) where this process dies.
pid_t start_process(const ProcessSpec& spec);

}  // namespace convoy
