// CSV as RFC 4180 writes it: quoted cells, doubled quotes, line breaks inside quotes. A byte order
// mark, Windows line ends, and semicolons or tabs instead of commas are understood too.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace convoy {

struct CsvRow {
  int line = 0;  // where it starts, counted from 1
  std::vector<std::string> cells = {};
};

// Rows without any text are left out. Throws Error that names `name` and the line of a quote that
// is never closed, or is followed by more text.
std::vector<CsvRow> parse_csv(std::string_view text, const std::string& name);

}  // namespace convoy
