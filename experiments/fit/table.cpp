#include "experiments/fit/table.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "experiments/fit/columns.h"
#include "experiments/fit/csv.h"
#include "launch/files.h"

namespace convoy {
namespace {

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

// JSON lines as a table: the headings are the keys in the order of their first appearance.
std::vector<CsvRow> parse_jsonl(std::string_view text, const std::string& name) {
  std::vector<CsvRow> rows(1);
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (trimmed(line).empty()) continue;
    const auto object = nlohmann::ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) throw Error(concat(name, ", line ", number, " is not a JSON object"));
    CsvRow row{.line = number};
    for (const auto& [key, value] : object.items()) {
      auto& headings = rows[0].cells;
      const auto at = std::find(headings.begin(), headings.end(), key) - headings.begin();
      if (at == std::ssize(headings)) headings.push_back(key);
      if (std::ssize(row.cells) <= at) row.cells.resize(static_cast<std::size_t>(at) + 1);
      std::string& cell = row.cells[static_cast<std::size_t>(at)];
      if (!value.is_null()) cell = value.is_string() ? value.get<std::string>() : value.dump();
    }
    rows.push_back(std::move(row));
  }
  for (CsvRow& row : rows) row.cells.resize(rows[0].cells.size());
  return rows;
}

// Reads the cells of one row.
class Cells {
 public:
  Cells(const CsvRow& row, const Columns& columns, const std::string& name)
      : row_(row), columns_(columns), name_(name) {}

  std::string word(Field field) const {
    const auto column = columns_[field];
    return column ? trimmed(row_.cells[*column]) : "";
  }

  // NaN for what is empty, or says itself that it is no number.
  double number(Field field) const {
    const std::string text = word(field);
    if (text.empty() || text == "-" || text == "null" || text == "None" || text == "NA")
      return std::numeric_limits<double>::quiet_NaN();
    const char* first = text.data() + (text[0] == '+' ? 1 : 0);
    double value = 0;
    const auto [end, failed] = std::from_chars(first, text.data() + text.size(), value);
    if (failed != std::errc() || end != text.data() + text.size())
      refuse(field, "is not a number: write 1234.5 or 1.2345e3");
    return value;
  }

  double positive(Field field) const {
    const double value = number(field);
    if (value <= 0 || std::isinf(value)) refuse(field, "must be positive and finite");
    return value;
  }

  std::optional<long long> seed() const {
    const double value = number(Field::seed);
    if (std::isnan(value)) return std::nullopt;
    if (value != std::floor(value) || std::abs(value) > 1e15)
      refuse(Field::seed, "is not a whole number");
    return static_cast<long long>(value);
  }

 private:
  [[noreturn]] void refuse(Field field, const std::string& why) const {
    throw Error(concat(name_, ", line ", row_.line, ", column \"", columns_.heading(field),
                       "\": \"", word(field), "\" ", why));
  }

  const CsvRow& row_;
  const Columns& columns_;
  const std::string& name_;
};

RunRow run_of(const Cells& cells, int line) {
  RunRow run{.line = line};
  run.run_id = cells.word(Field::run_id);
  run.arch = cells.word(Field::arch);
  run.size = cells.word(Field::size);
  run.status = cells.word(Field::status);
  run.device = cells.word(Field::device);
  run.flop_convention = cells.word(Field::flop_convention);
  run.seed = cells.seed();
  run.N = cells.positive(Field::N);
  run.D = cells.positive(Field::D);
  run.C = cells.positive(Field::C);
  run.loss = cells.number(Field::loss);  // a diverged run may have any
  run.wall_s = cells.number(Field::wall_s);
  run.ranks = cells.number(Field::ranks);
  run.device_hours = cells.number(Field::device_hours);
  return run;
}

// C = 6 N D gives the third of the three.
void derive(RunRow& run) {
  if (std::isnan(run.D)) run.D = run.C / (6 * run.N);
  if (std::isnan(run.N)) run.N = run.C / (6 * run.D);
  if (std::isnan(run.C)) run.C = 6 * run.N * run.D;
  if (run.size.empty())
    run.size = std::isnan(run.N) ? concat("C=", run.C) : concat("N=", std::llround(run.N));
}

void check_columns(const Columns& columns) {
  columns.require(Field::loss, "and without a loss there is nothing to fit");
  if (columns[Field::C]) return;
  const std::string why = "nor for C, so that C = 6 N D cannot be had either";
  columns.require(Field::N, why);
  columns.require(Field::D, why);
}

std::vector<std::string> notes_on(const Columns& columns) {
  std::vector<std::string> notes;
  const auto both = [&](Field a, Field b) { return columns[a] && columns[b]; };
  if (!columns[Field::C]) notes.emplace_back("no column for C: C = 6 N D");
  if (!columns[Field::D] && both(Field::N, Field::C))
    notes.emplace_back("no column for D: D = C / (6 N)");
  if (!columns[Field::N] && both(Field::D, Field::C))
    notes.emplace_back("no column for N: N = C / (6 D)");
  for (const Field field : {Field::N, Field::D, Field::C, Field::loss})
    if (columns[field])
      notes.push_back(concat(
          "column \"", columns.heading(field), "\" is ",
          std::array{
              "N", "D", "C",
              "loss"}[static_cast<std::size_t>(field) - static_cast<std::size_t>(Field::N)]));
  return notes;
}

}  // namespace

std::string place_of(const RunRow& run) {
  return run.table.empty() ? concat("line ", run.line)
                           : concat("line ", run.line, " of ", run.table);
}

std::string label_of(const RunRow& run) { return run.run_id.empty() ? place_of(run) : run.run_id; }

Runs parse_runs(std::string_view text, const std::string& name, TableFormat format,
                const ColumnChoice& chosen) {
  const auto rows = format == TableFormat::csv ? parse_csv(text, name) : parse_jsonl(text, name);
  if (rows.empty() || rows[0].cells.empty())
    throw Error(concat(name, " is empty: a table starts with a row of headings"));
  std::vector<std::string> headings;
  for (const std::string& heading : rows[0].cells) headings.push_back(trimmed(heading));
  const Columns columns(headings, chosen, name);
  check_columns(columns);
  Runs runs{.source = name, .notes = notes_on(columns), .has_flops = columns[Field::C].has_value()};
  for (std::size_t i = 1; i < rows.size(); ++i) {
    if (rows[i].cells.size() != headings.size())
      throw Error(concat(name, ", line ", rows[i].line, " has ", rows[i].cells.size(),
                         " cells, and there are ", headings.size(),
                         " headings: quote cells that hold the separator"));
    runs.rows.push_back(run_of(Cells(rows[i], columns, name), rows[i].line));
    derive(runs.rows.back());
  }
  if (runs.rows.empty()) throw Error(concat(name, " has headings but no runs"));
  return runs;
}

Runs read_runs(const std::filesystem::path& path, const ColumnChoice& columns) {
  const std::string ending = path.extension().string();
  const bool lines = ending == ".jsonl" || ending == ".ndjson";
  return parse_runs(read_text(path), path.string(), lines ? TableFormat::jsonl : TableFormat::csv,
                    columns);
}

Runs read_runs(const std::vector<std::string>& paths, const ColumnChoice& columns) {
  CHECK(!paths.empty(), "no table to read");
  Runs all = read_runs(paths.front(), columns);
  if (paths.size() == 1) return all;
  for (RunRow& run : all.rows) run.table = paths.front();
  for (std::string& note : all.notes) note = concat(paths.front(), ": ", note);
  for (std::size_t i = 1; i < paths.size(); ++i) {
    Runs more = read_runs(paths[i], columns);
    if (more.has_flops != all.has_flops)
      throw Error(concat(all.has_flops ? paths[i] : all.source, " has no column of FLOPs, and ",
                         all.has_flops ? all.source : paths[i],
                         " has one: C = 6 N D beside counted FLOPs would make two scales; name the "
                         "column with --column C=HEADING"));
    all.source += ", " + paths[i];
    for (RunRow& run : more.rows) {
      run.table = paths[i];
      all.rows.push_back(std::move(run));
    }
    for (const std::string& note : more.notes) all.notes.push_back(concat(paths[i], ": ", note));
  }
  return all;
}

}  // namespace convoy
