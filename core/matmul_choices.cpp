#include "core/matmul_choices.h"

#include <array>
#include <fstream>
#include <sstream>

#include "core/error.h"

namespace convoy {
namespace {

constexpr std::string_view kFirstLine = "# convoy matmul choices 1";
constexpr std::size_t kFields = 6;

std::array<std::string, kFields> split(const std::string& line, const std::string& place) {
  std::array<std::string, kFields> fields;
  std::istringstream in(line);
  std::size_t count = 0;
  for (std::string field; std::getline(in, field, '\t'); ++count) {
    if (count < kFields) fields[count] = field;
  }
  if (count != kFields) {
    throw Error(concat(place, " has ", count, " fields between tabs, expected ", kFields,
                       "; write the file again with `convoy bench matmul --write`"));
  }
  return fields;
}

double microseconds(const std::string& text, const std::string& place) {
  std::size_t end = 0;
  double value = -1;
  try {
    value = std::stod(text, &end);
  } catch (const std::exception&) {
    end = 0;
  }
  if (end != text.size() || text.empty() || value < 0) {
    throw Error(concat(place, ": \"", text, "\" is not a time in microseconds"));
  }
  return value * 1e-6;
}

}  // namespace

std::string MatmulChoices::key(std::string_view card, std::string_view library,
                               std::string_view shape) {
  return concat(card, '\t', library, '\t', shape);
}

MatmulChoices MatmulChoices::read(const std::string& path) {
  std::ifstream in(path);
  if (!in) {
    throw Error(concat("the table of matmul choices ", path,
                       " cannot be read; write one with `convoy bench matmul --write`"));
  }
  std::string line;
  std::getline(in, line);
  if (line != kFirstLine) {
    throw Error(concat(path, " is no table of matmul choices: it begins with \"", line,
                       "\", expected \"", kFirstLine, "\""));
  }
  MatmulChoices choices;
  for (int number = 2; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    const std::string place = concat(path, ":", number);
    const auto [card, library, shape, algorithm, seconds, unasked] = split(line, place);
    choices.set(key(card, library, shape),
                {algorithm, microseconds(seconds, place), microseconds(unasked, place)});
  }
  return choices;
}

void MatmulChoices::write(const std::string& path) const {
  std::ofstream out(path);
  out << kFirstLine << '\n';
  for (const auto& [key, choice] : choices_) {
    out << key << '\t' << choice.algorithm << '\t' << choice.seconds * 1e6 << '\t'
        << choice.unasked_seconds * 1e6 << '\n';
  }
  out.close();
  if (!out) throw Error(concat("the table of matmul choices could not be written to ", path));
}

const MatmulChoice* MatmulChoices::find(const std::string& key) const {
  const auto place = choices_.find(key);
  return place == choices_.end() ? nullptr : &place->second;
}

void MatmulChoices::set(const std::string& key, MatmulChoice choice) {
  choices_[key] = std::move(choice);
}

}  // namespace convoy
