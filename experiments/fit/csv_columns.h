// A CSV table that the program has written, with its columns by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "experiments/fit/csv.h"

namespace convoy {

class CsvColumns {
 public:
  // `writer`: the command that writes such a table, named where it has to be written again.
  CsvColumns(std::string_view text, std::string name, std::string writer);

  std::size_t rows() const { return rows_.size(); }
  bool has(const std::string& column) const { return index_of(column) >= 0; }
  void require(const std::vector<std::string>& columns) const;  // Error lists those that are not

  std::string place(std::size_t row) const;                            // "runs.csv, line 7"
  std::string text(std::size_t row, const std::string& column) const;  // empty: unknown
  double number(std::size_t row, const std::string& column) const;     // NaN: unknown

 private:
  std::ptrdiff_t index_of(const std::string& column) const;

  std::string name_, writer_;
  std::vector<std::string> headings_;
  std::vector<CsvRow> rows_;
};

}  // namespace convoy
