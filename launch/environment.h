// What a run records of the machine and the program it ran on.
#pragma once

#include <string>

namespace convoy {

std::string program_version();  // "0.1.0"
std::string source_revision();  // of the source tree at build time, "unknown" outside git
std::string hardware_name();    // the CPU's model name
std::string host_name();
std::string utc_now();  // "2026-01-31T12:00:00Z"

}  // namespace convoy
