#include "experiments/fit/speeds.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "core/error.h"
#include "experiments/fit/csv.h"
#include "launch/files.h"

namespace convoy {
namespace {

std::optional<std::size_t> column_of(const CsvRow& headings, const std::string& name) {
  const auto at = std::find(headings.cells.begin(), headings.cells.end(), name);
  if (at == headings.cells.end()) return std::nullopt;
  return static_cast<std::size_t>(at - headings.cells.begin());
}

std::size_t needed_column(const CsvRow& headings, const std::string& name,
                          const std::string& file) {
  if (const auto column = column_of(headings, name)) return *column;
  throw Error(concat(file, " has no column ", name,
                     ": a table of speeds has arch, size and flops_per_s, as convoy sweep time "
                     "writes them"));
}

double positive(const std::string& text, const std::string& place) {
  double value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool number = failed == std::errc() && end == text.data() + text.size();
  if (!number || !std::isfinite(value) || value <= 0)
    throw Error(concat(place, ": flops_per_s is \"", text, "\": write a positive number"));
  return value;
}

}  // namespace

double Speeds::ratio(const std::string& arm, const std::string& reference,
                     const std::string& size) const {
  const auto of_arm = flops_per_s.find({arm, size});
  const auto of_reference = flops_per_s.find({reference, size});
  if (of_arm == flops_per_s.end() || of_reference == flops_per_s.end())
    return std::numeric_limits<double>::quiet_NaN();
  return of_arm->second / of_reference->second;
}

Speeds read_speeds(const std::filesystem::path& path) {
  Speeds speeds{.source = path.string()};
  const auto rows = parse_csv(read_text(path), speeds.source);
  if (rows.size() < 2) throw Error(concat(speeds.source, " holds no speeds"));
  const CsvRow& headings = rows.front();
  const auto arch = needed_column(headings, "arch", speeds.source);
  const auto size = needed_column(headings, "size", speeds.source);
  const auto speed = needed_column(headings, "flops_per_s", speeds.source);
  const auto device = column_of(headings, "device");
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const auto& cells = rows[i].cells;
    const std::string place = concat(speeds.source, ", line ", rows[i].line);
    if (cells.size() != headings.cells.size())
      throw Error(concat(place, " has ", cells.size(), " cells, and there are ",
                         headings.cells.size(), " headings"));
    if (device && cells[*device] != rows[1].cells[*device])
      throw Error(concat(place, " is of ", cells[*device], ", and line ", rows[1].line, " of ",
                         rows[1].cells[*device], ": speeds of several devices cannot be compared"));
    if (!speeds.flops_per_s.try_emplace({cells[arch], cells[size]}, positive(cells[speed], place))
             .second)
      throw Error(concat(place, ": ", cells[arch], " at ", cells[size], " stands twice"));
  }
  return speeds;
}

}  // namespace convoy
