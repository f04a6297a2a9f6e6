// Which runs may enter a fit. Unfinished, diverged and duplicate runs are left out, each named with
// its reason.
#pragma once

#include <string>
#include <vector>

#include "experiments/comparison.h"
#include "experiments/fit/table.h"

namespace convoy {

struct Screened {
  std::vector<RunRow> runs = {};
  std::vector<ExcludedRun> exclusions = {};
};

// Of duplicates (one run_id twice, or one arm, size, token count and seed twice) the first stays.
Screened screen(const std::vector<RunRow>& runs);

// The runs of one arm. Throws Error where the table has several arms and none is named, or where it
// lacks the named one; the message lists the arms.
std::vector<RunRow> runs_of_arm(const std::vector<RunRow>& runs, const std::string& arm);

// Leaves out the runs with the largest losses, as published analyses do, and names them.
void drop_largest_losses(Screened& screened, int count);

// Throws Error where runs counted by different FLOP conventions stand in one table.
void check_conventions(const std::vector<RunRow>& runs);

}  // namespace convoy
