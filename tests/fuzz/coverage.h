// What the cases of a run had in them: a pass says little about what was never drawn.
#pragma once

#include <map>
#include <string>

#include "tests/fuzz/fuzz_case.h"

namespace convoy::test {

class Coverage {
 public:
  void add(const FuzzCase& fuzz);
  // A line for each kind of choice, as in "schedule: 1f1b 12, gpipe 9".
  std::string text() const;

 private:
  std::map<std::string, std::map<std::string, int>> counts_;  // choice -> value -> cases
};

}  // namespace convoy::test
