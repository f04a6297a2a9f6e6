// Tables as files. Every file is replaced whole.
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/hdf5.h"
#include "experiments/export/tables.h"
#include "launch/files.h"

namespace convoy {
namespace {

// 9 digits bring back every bit of a float and tell any two losses apart that matter.
std::string number(double value) { return fmt::format("{:.9g}", value); }

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}
std::string csv_cell(std::int64_t value) { return fmt::to_string(value); }
std::string csv_cell(double value) { return std::isfinite(value) ? number(value) : ""; }

std::string json_cell(const std::string& text) { return nlohmann::json(text).dump(); }
std::string json_cell(std::int64_t value) { return fmt::to_string(value); }
std::string json_cell(double value) { return std::isfinite(value) ? number(value) : "null"; }

std::string cell(const Column& column, std::size_t row, bool json) {
  return std::visit(
      [&](const auto& values) { return json ? json_cell(values[row]) : csv_cell(values[row]); },
      column);
}

}  // namespace

std::string to_csv(const Table& table) {
  std::string text;
  for (const auto& [name, column] : table.columns) text += (text.empty() ? "" : ",") + name;
  text += '\n';
  for (std::size_t row = 0; row < table.rows(); ++row) {
    bool first = true;
    for (const auto& [name, column] : table.columns) {
      if (!first) text += ',';
      first = false;
      text += cell(column, row, false);
    }
    text += '\n';
  }
  return text;
}

std::string to_jsonl(const Table& table) {
  std::string text;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    std::string line;
    for (const auto& [name, column] : table.columns) {
      line += (line.empty() ? "{\"" : ",\"") + name + "\":" + cell(column, row, true);
    }
    text += line + "}\n";
  }
  return text;
}

void write_hdf5(const SweepTables& tables, const std::filesystem::path& path) {
  const std::string temporary = path.string() + ".partial";
  Hdf5File file(temporary, Hdf5File::Mode::create);
  for (const Table* table : {&tables.curves, &tables.runs}) {
    for (const auto& [name, column] : table->columns) {
      const std::string place = table->name + "/" + name;
      std::visit([&](const auto& values) { file.write(place, values); }, column);
    }
  }
  file.close();
  std::filesystem::rename(temporary, path);
}

void write_tables(const SweepTables& tables, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  for (const Table* table : {&tables.curves, &tables.runs}) {
    replace_text(folder / (table->name + ".csv"), to_csv(*table));
    replace_text(folder / (table->name + ".jsonl"), to_jsonl(*table));
  }
  write_hdf5(tables, folder / "tables.h5");
}

}  // namespace convoy
