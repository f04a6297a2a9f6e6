// The tables of a report as rows of text, shared by the terminal and the page.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "experiments/comparison.h"

namespace convoy {

struct TextTable {
  std::vector<std::string> headings;
  std::vector<std::vector<std::string>> rows;  // each as long as headings
};

TextTable run_table(const Comparison& comparison);
TextTable arm_table(const Comparison& comparison);         // mean and sd over seeds
TextTable difference_table(const Comparison& comparison);  // no rows with fewer than two arms

// What a reader needs beside the tables: excluded runs, unequal FLOPs, the accuracy of tasks
// without text, torn lines.
std::vector<std::string> cautions(const Comparison& comparison);

// The first column to the left, the others to the right, padded with spaces.
void print_table(std::ostream& out, const TextTable& table);

// All of the above with headings.
void print_report(std::ostream& out, const Comparison& comparison);

}  // namespace convoy
