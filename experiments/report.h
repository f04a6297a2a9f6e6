// `convoy report`: run directories in; a table, two pictures and a page out.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <vector>

namespace convoy {

enum class ReportFormat { table, json };

struct ReportOptions {
  std::vector<std::filesystem::path> runs;  // the architecture of the first is the reference
  std::filesystem::path output;             // where the files go; none are written where empty
  ReportFormat format = ReportFormat::table;
};

// Prints to `out` and writes loss_curves.svg, loss_by_tokens.svg, report.html and report.json.
// Throws Error for a directory that holds no readable run. Returns the exit code, 0.
int report_main(const ReportOptions& options, std::ostream& out);

}  // namespace convoy
