// The fields of one JSON object, read with errors that name the place and the field.
// For .cpp files only: nlohmann-json is slow to compile.
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/error.h"

namespace convoy {

// A field that is null counts as absent, because JSON has no other way to write a NaN.
class Fields {
 public:
  Fields(const nlohmann::json& object, std::string place)
      : object_(object), place_(std::move(place)) {
    if (!object_.is_object()) throw Error(concat(place_, " is not a JSON object"));
  }

  double number(const char* key) const {
    return value_or(key, std::numeric_limits<double>::quiet_NaN());
  }

  template <class T>
  T value_or(const char* key, T otherwise) const {
    const auto at = object_.find(key);
    return at == object_.end() || at->is_null() ? otherwise : convert<T>(*at, key);
  }

  template <class T>
  T required(const char* key) const {
    const auto at = object_.find(key);
    if (at == object_.end()) throw Error(concat(place_, " lacks the field \"", key, "\""));
    return convert<T>(*at, key);
  }

 private:
  template <class T>
  T convert(const nlohmann::json& value, const char* key) const {
    try {
      return value.get<T>();
    } catch (const nlohmann::json::exception&) {
      throw Error(concat(place_, ": the field \"", key, "\" has the wrong type: ", value.dump()));
    }
  }

  const nlohmann::json& object_;
  std::string place_;
};

}  // namespace convoy
