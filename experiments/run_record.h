// A run directory, read back: run.json (the truth about status and size), metrics.jsonl (one row
// per step or validation) and config.toml. Rows that a resumed attempt trained again are dropped,
// so what remains is one uninterrupted run.
#pragma once

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace convoy {

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// tokens, flops (training) and wall_s are cumulative. A number that the file holds as null, or
// lacks, is NaN.
struct StepRecord {
  int attempt = 1;
  long long step = 0;
  double tokens = 0;
  double flops = 0;
  double wall_s = 0;
  double train_loss = 0;  // nats per token
  double lr = 0;
  double grad_norm = 0;
  double tokens_per_s = 0;
  double mfu = 0;
  double exposed_comm = 0;
  bool skipped = false;
};

struct EvalRecord {
  int attempt = 1;
  long long step = 0;
  double tokens = 0;
  double flops = 0;
  double wall_s = 0;
  double val_loss = 0;  // nats per token
  double val_bits_per_byte = 0;
  double val_loss_se = kUnknown;   // standard error of val_loss over the text, nats per token
  double val_accuracy = kUnknown;  // share of the targets that had the highest logit
  double last_token_accuracy = kUnknown;  // of a reader of the last token alone, where known
};

struct RunRecord {
  std::filesystem::path directory;
  std::string name;
  std::string status;  // running, done, interrupted, failed or diverged
  std::string arch;    // names the arm of a comparison
  std::string device;
  std::string git;
  std::string message;  // why it failed, where it did
  std::string config;   // the text of config.toml
  long long seed = 0;
  int ranks = 1;
  long long parameters = 0;
  long long steps = 0;  // optimizer steps taken
  double tokens = kUnknown;
  double flops = kUnknown;  // of training
  double wall_s = kUnknown;
  double val_loss = kUnknown;  // the final one, nats per token
  double val_bits_per_byte = kUnknown;
  std::vector<StepRecord> train;   // by step
  std::vector<EvalRecord> eval;    // by step
  std::vector<std::string> notes;  // what the reader tolerated, such as a torn last line
};

// Throws Error that names the file and the line where something is missing or malformed.
RunRecord read_run(const std::filesystem::path& directory);

}  // namespace convoy
