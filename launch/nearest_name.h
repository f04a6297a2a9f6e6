// "Did you mean": the known name that a mistyped one is closest to.
#pragma once

#include <set>
#include <string>

namespace convoy {

// By the number of one-letter edits (Levenshtein); the first in order among equals, empty where
// nothing is known.
std::string nearest_name(const std::string& name, const std::set<std::string>& known);

}  // namespace convoy
