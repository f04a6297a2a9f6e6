// The layers of a configuration as TOML text, merged; and what holds for an arm or a size.
#include <toml++/toml.h>

#include <sstream>

#include "core/error.h"
#include "experiments/manifest/sweep_manifest.h"

namespace convoy {
namespace {

// Tables merge key by key; anything else replaces what was there.
void merge_into(toml::table& target, const toml::table& layer) {
  for (const auto& [key, node] : layer) {
    toml::table* inner = target[key.str()].as_table();
    if (inner != nullptr && node.is_table()) {
      merge_into(*inner, *node.as_table());
    } else {
      node.visit([&](const auto& value) { target.insert_or_assign(key.str(), value); });
    }
  }
}

}  // namespace

std::string merge_toml(const std::vector<std::string>& layers) {
  toml::table merged;
  for (const auto& layer : layers) {
    try {
      merge_into(merged, toml::parse(layer));
    } catch (const toml::parse_error& error) {
      throw Error(concat("line ", error.source().begin.line, ": ", error.description()));
    }
  }
  std::ostringstream text;
  text << merged;
  return text.str();
}

const std::string& RulesSection::lr_of(const std::string& arch) const {
  static const std::string kNone;
  for (const auto& name : {arch, std::string()}) {
    if (const auto place = lr.find(name); place != lr.end()) return place->second;
  }
  return kNone;
}

std::int64_t LaunchSection::ranks_of(const std::string& size) const {
  for (const auto& name : {size, std::string()}) {
    if (const auto place = ranks.find(name); place != ranks.end()) return place->second;
  }
  return 1;
}

}  // namespace convoy
