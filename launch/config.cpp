#include "launch/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "launch/config_fields.h"
#include "launch/nearest_name.h"

namespace convoy {
namespace {

// What the design names and no field reads yet.
constexpr std::array<std::pair<const char*, const char*>, 1> kPlanned = {
    {{"model.moe", "mixture-of-experts model"}}};

// Fills fields from a TOML table, remembering what is known and what went wrong.
class FieldReader {
 public:
  FieldReader(const toml::table& root, std::vector<std::string>& problems)
      : root_(root), problems_(problems) {}

  void section(const std::string& name) {
    section_ = name;
    sections_.insert(name);
    const auto node = root_.at_path(name);
    table_ = node.as_table();
    if (node && table_ == nullptr) problems_.push_back("[" + name + "] is not a table");
  }

  void operator()(const std::string& key, std::int64_t& field) {
    if (const auto* node = find(key)) read_integer(key, *node, field);
  }
  void operator()(const std::string& key, int& field) {
    std::int64_t wide = field;
    (*this)(key, wide);
    field = static_cast<int>(wide);
  }
  void operator()(const std::string& key, double& field) {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto value = node->value<double>();
    value && node->is_number() ? void(field = *value) : wrong_type(key, "a number");
  }
  void operator()(const std::string& key, bool& field) {
    const auto* node = find(key);
    if (node == nullptr) return;
    node->is_boolean() ? void(field = *node->value<bool>()) : wrong_type(key, "true or false");
  }
  void operator()(const std::string& key, std::string& field) {
    const auto* node = find(key);
    if (node == nullptr) return;
    node->is_string() ? void(field = *node->value<std::string>()) : wrong_type(key, "a string");
  }
  void operator()(const std::string& key, std::string& field,
                  const std::vector<std::string>& choices) {
    std::string value = field;
    (*this)(key, value);
    if (index_of(key, value, choices) >= 0) field = value;
  }
  void operator()(const std::string& key, std::vector<std::string>& field) {
    const auto* node = find(key);
    if (node == nullptr) return;
    if (node->is_string()) {
      field = {*node->value<std::string>()};
    } else {
      read_list<std::string>(key, *node, field, "a list of strings");
    }
  }
  void operator()(const std::string& key, std::vector<std::int64_t>& field) {
    const auto* node = find(key);
    if (node != nullptr) read_list<std::int64_t>(key, *node, field, "a list of whole numbers");
  }
  void operator()(const std::string& key, std::vector<double>& field) {
    if (const auto* node = find(key)) read_list<double>(key, *node, field, "a list of numbers");
  }
  void operator()(const std::string& key, std::array<double, 2>& field) {
    const auto* node = find(key);
    if (node == nullptr) return;
    std::vector<double> values;
    read_list<double>(key, *node, values, "a list of two numbers");
    values.size() == 2 ? void(field = {values[0], values[1]})
                       : wrong_type(key, "a list of two numbers");
  }
  void operator()(const std::string& key, std::vector<ConvSite>& field,
                  const std::vector<std::string>& choices) {
    const auto* node = find(key);
    if (node == nullptr) return;
    std::vector<std::string> names;
    read_list<std::string>(key, *node, names, "a list of linears");
    std::set<ConvSite> sites;  // in the order of the model, each once
    for (const auto& name : names) {
      const int index = index_of(key, name, choices);
      if (index >= 0) sites.insert(static_cast<ConvSite>(index));
    }
    field.assign(sites.begin(), sites.end());
  }
  template <class Enum>
  requires std::is_enum_v<Enum>
  void operator()(const std::string& key, Enum& field, const std::vector<std::string>& choices) {
    std::string value = choices[static_cast<std::size_t>(field)];
    (*this)(key, value);
    const int index = index_of(key, value, choices);
    if (index >= 0) field = static_cast<Enum>(index);
  }

  // Reports keys that no field asked for.
  void finish() { walk(root_, ""); }

 private:
  std::string full(const std::string& key) const { return section_ + "." + key; }

  const toml::node* find(const std::string& key) {
    known_.insert(full(key));
    return table_ == nullptr ? nullptr : table_->get(key);
  }

  void wrong_type(const std::string& key, const std::string& expected) {
    problems_.push_back(full(key) + " must be " + expected);
  }

  // Integers may be written as 4e6.
  void read_integer(const std::string& key, const toml::node& node, std::int64_t& field) {
    if (node.is_integer()) {
      field = *node.value<std::int64_t>();
    } else if (node.is_floating_point() &&
               *node.value<double>() == std::floor(*node.value<double>())) {
      field = static_cast<std::int64_t>(*node.value<double>());
    } else {
      wrong_type(key, "a whole number");
    }
  }

  template <class T>
  void read_list(const std::string& key, const toml::node& node, std::vector<T>& field,
                 const std::string& expected) {
    const auto* list = node.as_array();
    if (list == nullptr) return wrong_type(key, expected);
    std::vector<T> values;
    for (const auto& element : *list) {
      const auto value = element.value<T>();
      if (!value) return wrong_type(key, expected);
      values.push_back(*value);
    }
    field = values;
  }

  int index_of(const std::string& key, const std::string& value,
               const std::vector<std::string>& choices) {
    const auto place = std::find(choices.begin(), choices.end(), value);
    if (place != choices.end()) return static_cast<int>(place - choices.begin());
    problems_.push_back(fmt::format("{} = \"{}\" is not known; use one of {}", full(key), value,
                                    fmt::join(choices, ", ")));
    return -1;
  }

  void walk(const toml::table& table, const std::string& prefix) {
    for (const auto& [name, node] : table) {
      const std::string path = prefix + std::string(name.str());
      if (node.is_table() && sections_.contains(path)) {
        walk(*node.as_table(), path + ".");
      } else if (!known_.contains(path)) {
        problems_.push_back(unknown(path));
      }
    }
  }

  std::string unknown(const std::string& path) const {
    for (const auto& [section, what] : kPlanned) {
      if (path != section && !path.starts_with(std::string(section) + ".")) continue;
      return fmt::format("{} is planned: this program has no {} yet", path, what);
    }
    std::set<std::string> names = known_;
    names.insert(sections_.begin(), sections_.end());
    return fmt::format("{} is not a known key; did you mean {}?", path, nearest_name(path, names));
  }

  const toml::table& root_;
  std::vector<std::string>& problems_;
  const toml::table* table_ = nullptr;
  std::string section_;
  std::set<std::string> sections_, known_;
};

class FieldWriter {
 public:
  void section(const std::string& name) {
    section_ = name;
    text_ += fmt::format("\n[{}]\n", name);
  }

  void operator()(const std::string& key, std::int64_t value) { line(key, fmt::to_string(value)); }
  void operator()(const std::string& key, int value) { line(key, fmt::to_string(value)); }
  void operator()(const std::string& key, bool value) { line(key, value ? "true" : "false"); }
  void operator()(const std::string& key, double value) { line(key, number(value)); }
  void operator()(const std::string& key, const std::string& value,
                  const std::vector<std::string>& = {}) {
    line(key, quoted(value));
  }
  void operator()(const std::string& key, const std::vector<std::string>& values) {
    list(key, values, quoted);
  }
  void operator()(const std::string& key, const std::vector<std::int64_t>& values) {
    list(key, values, [](std::int64_t value) { return fmt::to_string(value); });
  }
  void operator()(const std::string& key, const std::vector<double>& values) {
    list(key, values, number);
  }
  void operator()(const std::string& key, const std::array<double, 2>& values) {
    list(key, values, number);
  }
  void operator()(const std::string& key, const std::vector<ConvSite>& sites,
                  const std::vector<std::string>& names) {
    list(key, sites, [&](ConvSite s) { return quoted(names[static_cast<std::size_t>(s)]); });
  }
  template <class Enum>
  requires std::is_enum_v<Enum>
  void operator()(const std::string& key, Enum value, const std::vector<std::string>& names) {
    line(key, quoted(names[static_cast<std::size_t>(value)]));
  }

  std::string text() const { return text_.substr(1); }
  // "section.key" -> value as text.
  const std::map<std::string, std::string>& values() const { return values_; }

 private:
  static std::string number(double value) {
    const std::string text = fmt::format("{}", value);
    return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
  }
  static std::string quoted(const std::string& text) {
    std::ostringstream out;
    out << toml::value<std::string>(text);
    return out.str();
  }
  template <class List, class Format>
  void list(const std::string& key, const List& values, Format format) {
    std::vector<std::string> parts;
    for (const auto& value : values) parts.push_back(format(value));
    line(key, fmt::format("[{}]", fmt::join(parts, ", ")));
  }
  void line(const std::string& key, const std::string& value) {
    text_ += fmt::format("{} = {}\n", key, value);
    values_[section_ + "." + key] = value;
  }

  std::string section_, text_;
  std::map<std::string, std::string> values_;
};

// Puts `value` at the dotted path of `key`, making tables on the way.
void assign(toml::table& root, const std::string& key, const toml::node& value) {
  toml::table* table = &root;
  std::string rest = key;
  for (auto dot = rest.find('.'); dot != std::string::npos; dot = rest.find('.')) {
    const std::string name = rest.substr(0, dot);
    rest = rest.substr(dot + 1);
    if (!table->contains(name)) table->insert(name, toml::table{});
    table = table->get(name)->as_table();
    if (table == nullptr) throw Error(concat("--set ", key, ": ", name, " is not a table"));
  }
  value.visit([&](const auto& node) { table->insert_or_assign(rest, node); });
}

// "a.b=c": c is read as TOML, and as a plain string where that fails.
void apply_override(toml::table& root, const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw Error("--set " + text + ": expected key=value, as in --set train.steps=100");
  }
  const std::string key = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  try {
    assign(root, key, *toml::parse("value = " + value).get("value"));
  } catch (const toml::parse_error&) {
    assign(root, key, toml::value<std::string>(value));
  }
}

std::vector<std::string> keys_changed(const RunConfig& config) {
  FieldWriter ours, defaults;
  visit_fields(config, ours);
  visit_fields(RunConfig{}, defaults);
  std::vector<std::string> keys;
  for (const auto& [key, value] : ours.values()) {
    if (defaults.values().at(key) != value) keys.push_back(key);
  }
  return keys;
}

toml::table parse_toml(const std::string& text, const std::string& origin) {
  try {
    return toml::parse(text, origin);
  } catch (const toml::parse_error& error) {
    throw Error(concat(origin, ':', error.source().begin.line, ':', error.source().begin.column,
                       ": ", error.description()));
  }
}

}  // namespace

RunConfig parse_config(const std::string& toml, const std::string& origin,
                       const std::vector<std::string>& overrides) {
  toml::table root = parse_toml(toml, origin);
  for (const auto& text : overrides) apply_override(root, text);
  RunConfig config;
  config.origin = origin;
  FieldReader reader(root, config.problems);
  visit_fields(config, reader);
  reader.finish();
  config.keys_changed = keys_changed(config);
  return config;
}

RunConfig read_config(const std::string& path, const std::vector<std::string>& overrides) {
  std::ifstream file(path);
  if (!file) throw Error("cannot read the configuration " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return parse_config(text.str(), path, overrides);
}

std::string to_toml(const RunConfig& config) {
  FieldWriter writer;
  visit_fields(config, writer);
  return writer.text();
}

std::map<std::string, std::string> settings_of(const RunConfig& config) {
  FieldWriter writer;
  visit_fields(config, writer);
  return writer.values();
}

}  // namespace convoy
