#include "experiments/manifest/exclusion.h"

#include <algorithm>
#include <cstdlib>
#include <set>
#include <sstream>

#include "core/error.h"
#include "launch/nearest_name.h"

namespace convoy {
namespace {

// "seed!=0" or "size=60M".
Exclusion::Condition parse_condition(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    throw Error(concat("\"", text, "\" is not of the form key=value or key!=value"));
  }
  const bool equal = text[equals - 1] != '!';
  const auto trim = [](std::string word) {
    word.erase(0, word.find_first_not_of(' '));
    word.erase(word.find_last_not_of(' ') + 1);
    return word;
  };
  return {trim(text.substr(0, equal ? equals : equals - 1)), equal, trim(text.substr(equals + 1))};
}

bool holds(const RunTraits& run, const Exclusion::Condition& condition) {
  const auto word = run.words.find(condition.key);
  const bool same = word != run.words.end()
                        ? word->second == condition.value
                        : run.numbers.at(condition.key) == std::atof(condition.value.c_str());
  return same == condition.equal;
}

}  // namespace

Exclusion parse_exclusion(const std::string& text) {
  Exclusion exclusion{text, {}};
  std::istringstream parts(text);
  const std::set<std::string> known(kExclusionKeys.begin(), kExclusionKeys.end());
  for (std::string part; std::getline(parts, part, ',');) {
    exclusion.conditions.push_back(parse_condition(part));
    const std::string& key = exclusion.conditions.back().key;
    if (!known.contains(key)) {
      throw Error(concat(key, " is not known; did you mean ", nearest_name(key, known), "?"));
    }
  }
  if (exclusion.conditions.empty()) throw Error("an exclusion without a condition; remove it");
  return exclusion;
}

bool meets(const RunTraits& run, const Exclusion& exclusion) {
  const auto& all = exclusion.conditions;
  return std::all_of(all.begin(), all.end(), [&](const auto& one) { return holds(run, one); });
}

}  // namespace convoy
