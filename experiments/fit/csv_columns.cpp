#include "experiments/fit/csv_columns.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "core/error.h"

namespace convoy {

CsvColumns::CsvColumns(std::string_view text, std::string name, std::string writer)
    : name_(std::move(name)), writer_(std::move(writer)), rows_(parse_csv(text, name_)) {
  if (rows_.empty()) throw Error(concat(name_, " is empty: a table starts with its headings"));
  headings_ = rows_.front().cells;
  rows_.erase(rows_.begin());
  for (const CsvRow& row : rows_) {
    if (row.cells.size() == headings_.size()) continue;
    throw Error(concat(name_, ", line ", row.line, " has ", row.cells.size(),
                       " cells, and there are ", headings_.size(), " headings: write it again by `",
                       writer_, "`"));
  }
}

std::ptrdiff_t CsvColumns::index_of(const std::string& column) const {
  const auto at = std::find(headings_.begin(), headings_.end(), column);
  return at == headings_.end() ? -1 : at - headings_.begin();
}

void CsvColumns::require(const std::vector<std::string>& columns) const {
  std::string lacking;
  for (const std::string& column : columns)
    if (!has(column)) lacking += (lacking.empty() ? "" : ", ") + column;
  if (!lacking.empty())
    throw Error(
        concat(name_, " lacks the columns ", lacking, ": write it again by `", writer_, "`"));
}

std::string CsvColumns::place(std::size_t row) const {
  return concat(name_, ", line ", rows_[row].line);
}

std::string CsvColumns::text(std::size_t row, const std::string& column) const {
  const auto at = index_of(column);
  return at < 0 ? "" : rows_[row].cells[static_cast<std::size_t>(at)];
}

double CsvColumns::number(std::size_t row, const std::string& column) const {
  const std::string cell = text(row, column);
  if (cell.empty()) return std::numeric_limits<double>::quiet_NaN();
  double value = 0;
  const auto [end, fault] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (fault == std::errc() && end == cell.data() + cell.size()) return value;
  throw Error(concat(place(row), ": ", column, " is \"", cell, "\", which is not a number"));
}

}  // namespace convoy
