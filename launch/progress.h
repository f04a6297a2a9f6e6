// What a person sees while a run trains: one line that renews itself on a terminal, plain lines in
// a log file. Rank 0 alone prints.
#pragma once

#include <string>

#include "launch/config.h"
#include "launch/run_directory.h"
#include "launch/stopwatch.h"

namespace convoy {

class Progress {
 public:
  Progress(const RunConfig& config, RunDirectory::Role role);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void note(const std::string& text);  // a line of its own
  void step(const TrainRow& row, double eta_seconds);
  void evaluation(const EvalRow& row);

 private:
  enum class Style : std::uint8_t { silent, lines, renewed };

  Style style_;
  std::int64_t steps_, every_;
  bool line_open_ = false;
  Stopwatch since_last_;
};

std::string format_duration(double seconds);  // "1:02:03", "4:05"

}  // namespace convoy
