// A sweep as its output folder tells it: the tables `runs` and `curves`, and `study.json`. Nothing
// is filled in; what a file lacks stays unknown, and `missing` says so.
#pragma once

#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/speeds.h"
#include "experiments/fit/table.h"
#include "experiments/sweep_report/study.h"

namespace convoy {

// A point of a curve. Losses in nats per token; wall_s counts a branch's past too.
struct CurvePoint {
  double tokens = 0, flops = 0, wall_s = 0, loss = 0;
};

struct ReportedRun {
  RunRow row = {};           // run_id is the name of the plan where there is one
  std::string id = {};       // in the run store
  std::string command = {};  // empty: not recorded
  std::string message = {};  // why it failed or diverged
  std::string schedule = {}, git = {};
  bool started = true;      // has a row in `runs`
  double target_flops = 0;  // 0: none
  double epochs = 0;        // 0: unknown
  double steps = std::numeric_limits<double>::quiet_NaN();
  double batch_tokens = std::numeric_limits<double>::quiet_NaN();
  double peak_lr = std::numeric_limits<double>::quiet_NaN();
  double bits_per_byte = std::numeric_limits<double>::quiet_NaN();
  double loss_se = std::numeric_limits<double>::quiet_NaN();
  double mfu = std::numeric_limits<double>::quiet_NaN();
  double unique_tokens = std::numeric_limits<double>::quiet_NaN();
  double tokens_per_s = std::numeric_limits<double>::quiet_NaN();  // median of the second half
  std::vector<CurvePoint> training = {}, validation = {};
};

struct SweepData {
  std::string name = {};
  std::optional<Study> study = {};
  std::optional<Speeds> speeds = {};      // speeds.csv, of `convoy sweep time`
  Runs table = {};                        // the rows of `runs`, named as in the plan
  std::vector<ReportedRun> runs = {};     // those, then planned ones that never started
  std::vector<std::string> missing = {};  // in sentences
};

// `source`: the output folder of a sweep, or a table of runs by itself (CSV or JSON lines). Throws
// Error for anything else, and for a file that cannot be understood.
SweepData read_sweep(const std::filesystem::path& source);

}  // namespace convoy
