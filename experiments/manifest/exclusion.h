// What a manifest leaves out: "size=60M,seed!=0" is every run that meets all of its conditions.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

namespace convoy {

struct Exclusion {
  struct Condition {
    std::string key;  // one of kExclusionKeys
    bool equal = true;
    std::string value;
  };
  std::string text;
  std::vector<Condition> conditions;
};
inline constexpr std::array kExclusionKeys = {"arch",   "size",  "seed",  "tokens_per_param",
                                              "tokens", "flops", "steps", "lr_multiplier",
                                              "branch"};

// What the conditions are asked of: words and numbers by key.
struct RunTraits {
  std::map<std::string, std::string> words;
  std::map<std::string, double> numbers;
};

// Throws an Error for what is no condition, or of an unknown key.
Exclusion parse_exclusion(const std::string& text);
bool meets(const RunTraits& run, const Exclusion& exclusion);

}  // namespace convoy
