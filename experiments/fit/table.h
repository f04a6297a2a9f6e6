// Tables of runs, anybody's: CSV or JSON lines, with the headings people use ("Model Size",
// "params", "Training FLOP"). Each row becomes a RunRow; what is missing or unreadable is named by
// line and column.
#pragma once

#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace convoy {

// One trained model. A number that the table lacks is NaN, a word that it lacks is empty.
struct RunRow {
  int line = 0;            // in the file
  std::string table = {};  // the file, where the runs of several are together
  std::string run_id = {};
  std::string arch = {};
  std::string size = {};  // names N (and the shape) where the table has no such column
  std::string status = {};
  std::string device = {};
  std::string flop_convention = {};
  std::optional<long long> seed = {};
  double N = std::numeric_limits<double>::quiet_NaN();     // parameters
  double D = std::numeric_limits<double>::quiet_NaN();     // training tokens
  double C = std::numeric_limits<double>::quiet_NaN();     // training FLOPs
  double loss = std::numeric_limits<double>::quiet_NaN();  // nats per token
  double wall_s = std::numeric_limits<double>::quiet_NaN();
  double ranks = std::numeric_limits<double>::quiet_NaN();
  double device_hours = std::numeric_limits<double>::quiet_NaN();
};

// run_id, or the line.
std::string label_of(const RunRow& run);
std::string place_of(const RunRow& run);  // "line 3", or "line 3 of more.csv"

struct Runs {
  std::string source = {};
  std::vector<RunRow> rows = {};
  std::vector<std::string> notes = {};  // which column stands for what, what was derived
  bool has_flops = false;               // C is a column, not 6 N D
};

enum class TableFormat { csv, jsonl };

// Fields read from a heading of one's own: {"N", "N_non_embedding"}.
using ColumnChoice = std::map<std::string, std::string>;

// The format follows the name: .jsonl and .ndjson are JSON lines, everything else is CSV.
Runs read_runs(const std::filesystem::path& path, const ColumnChoice& columns = {});

// Several tables as one: a study that was trained in parts, or two people's. Throws Error where one
// has a column of FLOPs and another has not.
Runs read_runs(const std::vector<std::string>& paths, const ColumnChoice& columns);

// Throws Error where the loss, or all means to know C, are missing; where two headings claim one
// field; where a cell is not a number or a size is not positive.
Runs parse_runs(std::string_view text, const std::string& name, TableFormat format,
                const ColumnChoice& chosen = {});

}  // namespace convoy
