// MatmulChoices: which of its algorithms a matmul library shall take for a shape, as measured once
// and kept in a file, so that a run measures nothing and gives the same bits every time. A line of
// the file has, separated by tabs: card, library, shape, algorithm in the library's own words, and
// the microseconds of this algorithm and of the one that the library takes unasked.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace convoy {

struct MatmulChoice {
  std::string algorithm;
  double seconds, unasked_seconds;
};

class MatmulChoices {
 public:
  // Throws where the file cannot be read, names the line that is not understood.
  static MatmulChoices read(const std::string& path);
  void write(const std::string& path) const;

  // The key of a shape on a card with a library.
  static std::string key(std::string_view card, std::string_view library, std::string_view shape);
  const MatmulChoice* find(const std::string& key) const;  // null where there is none
  void set(const std::string& key, MatmulChoice choice);
  const std::map<std::string, MatmulChoice>& all() const { return choices_; }

 private:
  std::map<std::string, MatmulChoice> choices_;
};

}  // namespace convoy
