// Reads one table of a manifest: each key once, its type checked, and in the end every key that
// nobody asked for reported with the nearest known one. For .cpp files only: toml++ is slow to
// compile.
#pragma once

#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "launch/nearest_name.h"

namespace convoy {

class TableReader {
 public:
  // `where` is how messages name the table: "plan", or "" for the root.
  TableReader(const toml::table* table, std::string where, std::vector<std::string>& problems)
      : table_(table), where_(std::move(where)), problems_(problems) {}

  const toml::node* find(const std::string& key) {
    known_.insert(key);
    return table_ == nullptr ? nullptr : table_->get(key);
  }

  void read(const std::string& key, std::string& field) {
    if (const auto* node = find(key))
      take(key, node->value_exact<std::string>(), field, "a string");
  }
  void read(const std::string& key, std::string& field, const std::vector<std::string>& choices) {
    std::string value = field;
    read(key, value);
    if (std::find(choices.begin(), choices.end(), value) != choices.end()) {
      field = value;
    } else if (find(key) != nullptr && find(key)->is_string()) {
      std::string list;
      for (const auto& choice : choices) list += (list.empty() ? "" : ", ") + choice;
      problem(concat(full(key), " = \"", value, "\" is not known; use one of ", list));
    }
  }
  void read(const std::string& key, double& field) {
    if (const auto* node = find(key)) take(key, number(*node), field, "a number");
  }
  void read(const std::string& key, std::int64_t& field) {
    if (const auto* node = find(key)) take(key, whole(*node), field, "a whole number");
  }
  void read(const std::string& key, std::vector<double>& field) {
    read_list(key, field, number, "a list of numbers");
  }
  void read(const std::string& key, std::vector<std::int64_t>& field) {
    read_list(key, field, whole, "a list of whole numbers");
  }
  void read(const std::string& key, std::vector<std::string>& field) {
    read_list(key, field, text, "a list of strings");
  }

  std::string full(const std::string& key) const {
    return where_.empty() ? key : where_ + "." + key;
  }
  void problem(const std::string& text) { problems_.push_back(text); }

  void finish() {
    if (table_ == nullptr) return;
    for (const auto& [name, node] : *table_) {
      const std::string key(name.str());
      if (known_.contains(key)) continue;
      problem(concat(full(key), " is not a known key; did you mean ",
                     full(nearest_name(key, known_)), "?"));
    }
  }

  static std::optional<double> number(const toml::node& node) {
    return node.is_number() ? node.value<double>() : std::nullopt;
  }
  // Whole numbers may be written as 4e6.
  static std::optional<std::int64_t> whole(const toml::node& node) {
    const auto value = number(node);
    if (!value || *value != std::floor(*value)) return std::nullopt;
    return static_cast<std::int64_t>(*value);
  }
  static std::optional<std::string> text(const toml::node& node) {
    return node.value_exact<std::string>();
  }

 private:
  template <class T>
  void take(const std::string& key, const std::optional<T>& value, T& field,
            const std::string& expected) {
    value ? void(field = *value) : problem(full(key) + " must be " + expected);
  }

  template <class T, class Convert>
  void read_list(const std::string& key, std::vector<T>& field, Convert convert,
                 const std::string& expected) {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto* list = node->as_array();
    std::vector<T> values;
    bool sound = list != nullptr;
    for (std::size_t i = 0; sound && i < list->size(); ++i) {
      const auto value = convert(*list->get(i));
      sound = value.has_value();
      if (sound) values.push_back(*value);
    }
    sound ? void(field = values) : problem(full(key) + " must be " + expected);
  }

  const toml::table* table_;
  std::string where_;
  std::vector<std::string>& problems_;
  std::set<std::string> known_;
};

}  // namespace convoy
