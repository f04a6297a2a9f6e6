// FLOPs per token by part, as run.json and a plan have them.
// For .cpp files only: nlohmann-json is slow to compile.
#pragma once

#include <nlohmann/json.hpp>

#include "models/accounting.h"

namespace convoy {

inline nlohmann::ordered_json json_of(const FlopParts& parts) {
  return {{"linear", parts.linear},
          {"attention", parts.attention},
          {"head", parts.head},
          {"conv", parts.conv},
          {"router", parts.router}};
}

}  // namespace convoy
