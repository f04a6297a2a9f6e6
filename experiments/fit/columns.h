// Which column of a table is which field of a RunRow: the headings people use, and the errors that
// list what was found where none of them is there.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "experiments/fit/table.h"

namespace convoy {

enum class Field {
  run_id,
  arch,
  size,
  seed,
  status,
  device,
  flop_convention,
  N,
  D,
  C,
  loss,
  wall_s,
  ranks,
  device_hours
};
inline constexpr std::size_t kFields = 14;

// The index of each field's column, where the table has it.
class Columns {
 public:
  // Throws Error where two headings mean one field, or a chosen heading is not there.
  Columns(const std::vector<std::string>& headings, const ColumnChoice& chosen,
          const std::string& name);

  std::optional<std::size_t> operator[](Field field) const;
  const std::string& heading(Field field) const { return headings_[index_[to(field)].value()]; }

  // Throws Error that says which headings would do and which were found.
  void require(Field field, const std::string& why) const;

 private:
  static std::size_t to(Field field) { return static_cast<std::size_t>(field); }
  void choose(const ColumnChoice& chosen);
  void recognise(Field field);

  std::vector<std::string> headings_;
  std::string name_;
  std::array<std::optional<std::size_t>, kFields> index_;
};

}  // namespace convoy
