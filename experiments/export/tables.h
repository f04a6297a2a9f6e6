// The tables of a sweep, in memory: `curves` has one row per step of every run, `runs` one row per
// run. Columns are those of the exported files, in their order; a number that is not known is NaN
// and written as an empty cell (CSV) or null (JSON).
#pragma once

#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "experiments/manifest/sweep_plan.h"
#include "experiments/sweep/run_store.h"

namespace convoy {

// All cells of one column are of one type.
using Column =
    std::variant<std::vector<std::string>, std::vector<std::int64_t>, std::vector<double>>;

struct Table {
  std::string name;  // "curves" or "runs"
  std::vector<std::pair<std::string, Column>> columns;

  std::size_t rows() const;
  const Column& column(const std::string& wanted) const;
  const std::vector<std::string>& texts(const std::string& column_name) const;
  const std::vector<std::int64_t>& integers(const std::string& column_name) const;
  const std::vector<double>& reals(const std::string& column_name) const;
};

struct SweepTables {
  Table curves, runs;
};

// Every run of the plan that has a run directory, in the plan's order, whatever its status. Rows
// that a resumed attempt trained again are left out.
SweepTables make_tables(const SweepPlan& plan, const RunStore& store);

// 9 significant digits; integers in full.
std::string to_csv(const Table& table);
std::string to_jsonl(const Table& table);
void write_hdf5(const SweepTables& tables, const std::filesystem::path& path);

// NAME.csv and NAME.jsonl of both tables and tables.h5 into a folder.
void write_tables(const SweepTables& tables, const std::filesystem::path& folder);

}  // namespace convoy
