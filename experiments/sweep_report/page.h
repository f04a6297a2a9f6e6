// The report of a sweep: one HTML file that needs nothing from outside.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <string>

#include "experiments/sweep_report/analysis.h"

namespace convoy {

std::string sweep_page(const SweepData& data, const SweepAnalysis& analysis);

// Whether `convoy report PATH` means a sweep: its output folder, or a table of runs.
bool is_sweep(const std::filesystem::path& source);

// Writes `page` and says so; where it is empty, report.html in the sweep's folder.
void report_sweep(const std::filesystem::path& source, std::filesystem::path page,
                  std::ostream& out);

}  // namespace convoy
