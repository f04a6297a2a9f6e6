#include "experiments/fit/speeds.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "experiments/fit/csv_columns.h"
#include "launch/files.h"

namespace convoy {

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
  const CsvColumns table(read_text(path), speeds.source, "convoy sweep time");
  table.require({"arch", "size", "flops_per_s"});
  if (table.rows() == 0) throw Error(concat(speeds.source, " holds no speeds"));
  const std::string device = table.text(0, "device");
  for (std::size_t row = 0; row < table.rows(); ++row) {
    const std::string place = table.place(row), arch = table.text(row, "arch"),
                      size = table.text(row, "size");
    if (table.text(row, "device") != device)
      throw Error(concat(place, " is of ", table.text(row, "device"), ", and ", table.place(0),
                         " of ", device, ": speeds of several devices cannot be compared"));
    const double speed = table.number(row, "flops_per_s");
    if (!std::isfinite(speed) || speed <= 0)
      throw Error(concat(place, ": flops_per_s is \"", table.text(row, "flops_per_s"),
                         "\": write a positive number"));
    if (!speeds.flops_per_s.try_emplace({arch, size}, speed).second)
      throw Error(concat(place, ": ", arch, " at ", size, " stands twice"));
  }
  return speeds;
}

}  // namespace convoy
