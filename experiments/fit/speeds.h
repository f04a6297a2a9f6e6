// Model FLOP/s of each arm at each size, measured apart from the runs (`convoy sweep time`): what a
// study needs for the clock whose runs did not train under equal conditions.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>

namespace convoy {

struct Speeds {
  std::string source = {};                                                 // the file
  std::map<std::pair<std::string, std::string>, double> flops_per_s = {};  // by arm and size

  // Arm over reference; NaN where one of them was not measured at this size.
  double ratio(const std::string& arm, const std::string& reference, const std::string& size) const;
};

// A CSV table with the columns arch, size and flops_per_s. Throws Error where one of them is
// missing, a speed is no positive number, one arm and size stand twice, or the column `device`
// names several devices.
Speeds read_speeds(const std::filesystem::path& path);

}  // namespace convoy
