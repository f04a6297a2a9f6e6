// A real as JSON has it: null where it is not finite, because JSON knows neither NaN nor infinity.
// For .cpp files only: nlohmann-json is slow to compile.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>

namespace convoy {

inline nlohmann::ordered_json json_number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json(nullptr);
}

}  // namespace convoy
