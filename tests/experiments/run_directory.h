// Run directories made by hand, in a temporary place that goes away with the test.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace convoy::testing {

class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void write_text(const std::filesystem::path& path, const std::string& text);
std::string read_text(const std::filesystem::path& path);

// One row of metrics.jsonl, ended by a newline: 1000 tokens, 1e9 FLOPs and 0.5 s per step.
std::string train_row(int attempt, int step, double loss, double tokens_per_s = 2000);
std::string eval_row(int attempt, int step, double loss);

struct RunFiles {
  std::string name = "run";
  std::string status = "done";
  std::string arch = "transformer";
  int seed = 0;
  double val_loss = 1.5;
  std::string metrics = train_row(1, 1, 2.0) + eval_row(1, 1, 1.5);
};

// Writes ROOT/NAME and returns it; bits per byte are val_loss / ln 2.
std::filesystem::path write_run(const std::filesystem::path& root, const RunFiles& files);

}  // namespace convoy::testing
