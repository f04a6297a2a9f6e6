// Runs programs and reads what they leave.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "launch/checkpoint/checkpoint.h"
#include "launch/files.h"

namespace convoy::test {

struct ProcessResult {
  int code;
  std::string output;  // both streams
};

inline ProcessResult run_shell(const std::string& command) {
  std::FILE* pipe = popen(("( " + command + " ) 2>&1").c_str(), "r");
  CHECK(pipe != nullptr, "cannot run ", command);
  ProcessResult result{0, ""};
  char part[4096];
  for (std::size_t n; (n = std::fread(part, 1, sizeof(part), pipe)) > 0;) {
    result.output.append(part, n);
  }
  const int status = pclose(pipe);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

// The program under test and the tree it was built from.
inline const std::string kConvoy = CONVOY_BINARY;
inline const std::string kSource = CONVOY_SOURCE;

inline ProcessResult run_convoy(const std::string& arguments) {
  return run_shell(kConvoy + " " + arguments);
}

// The checksums of every tensor of a run's newest checkpoint: equal where all bits are.
inline std::vector<std::string> tensor_sums(const std::filesystem::path& run) {
  std::vector<std::string> sums;
  const Checkpoint checkpoint = Checkpoint::open(run);
  for (const auto& tensor : checkpoint.manifest().tensors) {
    for (const auto& piece : tensor.pieces) sums.push_back(tensor.name + " " + piece.sha256);
  }
  return sums;
}

// A column of metrics.jsonl by step; a later attempt's rows replace an earlier one's.
inline std::map<std::int64_t, double> column(const std::filesystem::path& run,
                                             const std::string& kind, const std::string& name) {
  std::map<std::int64_t, double> values;
  std::istringstream lines(read_text(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line, nullptr, false);
    if (!row.is_discarded() && row.at("kind") == kind) values[row.at("step")] = row.at(name);
  }
  return values;
}

}  // namespace convoy::test
