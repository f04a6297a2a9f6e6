#include "experiments/fit/columns.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"

namespace convoy {
namespace {

struct Names {
  Field field;
  std::vector<std::string> names;  // the first is the project's own, and wins
};

// Compared without case, spaces and punctuation: "Training FLOPs" is "trainingflops".
const std::vector<Names>& known_names() {
  static const std::vector<Names> kNames = {
      {Field::run_id, {"run_id", "run", "id", "run name", "name"}},
      {Field::arch, {"arch", "architecture", "arm", "variant"}},
      {Field::size, {"size", "size id", "model name"}},
      {Field::seed, {"seed", "random seed"}},
      {Field::status, {"status", "state"}},
      {Field::device, {"device", "hardware", "gpu"}},
      {Field::flop_convention, {"flop_convention", "flops convention"}},
      {Field::N,
       {"N", "params", "parameters", "model size", "n params", "num params", "parameter count",
        "model params"}},
      {Field::D,
       {"D", "tokens", "training tokens", "train tokens", "n tokens", "num tokens", "tokens seen",
        "dataset size"}},
      {Field::C,
       {"C", "flops", "flop", "training flop", "training flops", "train flops", "compute",
        "total flops"}},
      {Field::loss,
       {"loss", "val_loss", "validation loss", "eval loss", "test loss", "final loss"}},
      {Field::wall_s, {"wall_s", "wall seconds", "seconds"}},
      {Field::ranks, {"ranks", "devices", "gpus", "num gpus"}},
      {Field::device_hours, {"device_hours", "gpu hours"}}};
  return kNames;
}

const std::vector<std::string>& names_of(Field field) {
  const auto& all = known_names();
  return std::find_if(all.begin(), all.end(), [&](const Names& n) { return n.field == field; })
      ->names;
}

std::string plain(const std::string& heading) {
  std::string out;
  for (const char c : heading)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string list_of(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

}  // namespace

Columns::Columns(const std::vector<std::string>& headings, const ColumnChoice& chosen,
                 const std::string& name)
    : headings_(headings), name_(name) {
  choose(chosen);
  for (const Names& names : known_names())
    if (!(*this)[names.field]) recognise(names.field);
}

std::optional<std::size_t> Columns::operator[](Field field) const { return index_[to(field)]; }

void Columns::choose(const ColumnChoice& chosen) {
  for (const auto& [field_name, heading] : chosen) {
    const auto& all = known_names();
    const auto field = std::find_if(all.begin(), all.end(), [&, name = field_name](const Names& n) {
      return n.names[0] == name;
    });
    if (field == all.end()) {
      std::vector<std::string> fields;
      for (const Names& names : all) fields.push_back(names.names[0]);
      throw Error(
          concat("--column ", field_name, "=", heading, ": the fields are ", list_of(fields)));
    }
    const auto at = std::find(headings_.begin(), headings_.end(), heading);
    if (at == headings_.end())
      throw Error(concat(name_, " has no column \"", heading, "\". It has: ", list_of(headings_)));
    index_[to(field->field)] = static_cast<std::size_t>(at - headings_.begin());
  }
}

void Columns::recognise(Field field) {
  const auto& names = names_of(field);
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < headings_.size(); ++i) {
    const bool known = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return plain(name) == plain(headings_[i]);
    });
    const bool taken = std::find(index_.begin(), index_.end(), i) != index_.end();
    if (known && !taken) found.push_back(i);
  }
  // The project's own heading, spelled exactly, is meant where other words for it stand beside it.
  const auto own = [&](std::size_t i) { return headings_[i] == names[0]; };
  if (found.size() > 1 && std::count_if(found.begin(), found.end(), own) == 1)
    found = {*std::find_if(found.begin(), found.end(), own)};
  if (found.size() > 1)
    throw Error(concat(name_, ": the columns \"", headings_[found[0]], "\" and \"",
                       headings_[found[1]], "\" both mean ", names[0], ". Say which: --column ",
                       names[0], "=\"", headings_[found[0]], "\""));
  if (!found.empty()) index_[to(field)] = found[0];
}

void Columns::require(Field field, const std::string& why) const {
  if ((*this)[field]) return;
  const auto& names = names_of(field);
  throw Error(concat(name_, " has no column for ", names[0], ", ", why,
                     ". Headings that would do: ", list_of(names), "; it has: ", list_of(headings_),
                     ". Name another one: --column ", names[0], "=HEADING"));
}

}  // namespace convoy
