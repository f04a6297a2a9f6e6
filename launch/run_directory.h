// The folder of one run: config.toml, metrics.jsonl (appended every step, the truth), run.json (the
// run's status), checkpoints/. Written by rank 0 alone; the other ranks hold a silent one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "launch/config.h"
#include "launch/run_device.h"

namespace convoy {

struct TrainRow {
  std::int64_t step, tokens;
  double flops, wall_s, train_loss, lr, grad_norm, tokens_per_s, exposed_comm;
  bool skipped;
};

struct EvalRow {
  std::int64_t step, tokens;
  double flops, wall_s, val_loss, val_bits_per_byte;
  std::int64_t targets, bytes;
  double val_loss_se;  // NaN: from one micro-batch none can be had
  double val_accuracy;
  double last_token_accuracy;  // NaN: the data do not say
};

enum class RunStatus : std::uint8_t { running, done, interrupted, failed, diverged };

struct RunSummary {
  RunStatus status = RunStatus::running;
  std::int64_t tokens = 0;
  double flops = 0, wall_s = 0;
  double val_loss = 0, val_bits_per_byte = 0;  // 0 tokens evaluated: not written
  std::int64_t val_targets = 0;
  std::string message;
};

class RunDirectory {
 public:
  enum class Role : bool { silent, writer };

  // Refuses a folder that already holds a run unless `attempt` > 1 (a resumed one).
  RunDirectory(std::filesystem::path path, Role role, const RunConfig& config, int ranks,
               RunHardware hardware, std::int64_t attempt);

  void append(const TrainRow& row);
  void append(const EvalRow& row);
  void write_summary(const RunSummary& summary);
  void write_table() const;  // metrics.h5: the training rows of metrics.jsonl as columns

  const std::filesystem::path& path() const { return path_; }

 private:
  void append_line(const std::string& line);
  // Model FLOP/s over the peak of all devices; NaN where that is not known.
  double utilization(double tokens_per_s) const;

  std::filesystem::path path_;
  Role role_;
  RunConfig config_;
  int ranks_;
  RunHardware hardware_;
  std::int64_t attempt_;
  std::string started_;
  std::ofstream metrics_;
};

// "done", "running", ... of a run directory; empty where it holds no run.
std::string run_status(const std::filesystem::path& run_directory);
// Attempts that a run directory has seen, from its metrics; 0 where it holds no run.
std::int64_t last_attempt(const std::filesystem::path& run_directory);

}  // namespace convoy
