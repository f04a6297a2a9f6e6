#include "experiments/report.h"

#include <fstream>
#include <ostream>
#include <string>

#include "core/error.h"
#include "experiments/comparison.h"
#include "experiments/loss_charts.h"
#include "experiments/report_html.h"
#include "experiments/report_json.h"
#include "experiments/report_table.h"

namespace convoy {
namespace {

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  if (!out) throw Error(concat("cannot write ", path, ": check the directory and free space"));
}

// Returns what it wrote, in the order a reader wants it. Without a validation there is no chart.
std::vector<std::filesystem::path> write_files(const std::filesystem::path& directory,
                                               const Comparison& comparison) {
  std::error_code failed;
  std::filesystem::create_directories(directory, failed);
  if (failed) throw Error(concat("cannot create ", directory, ": ", failed.message()));
  std::vector<std::filesystem::path> written;
  const auto write = [&](const char* name, const std::string& text) {
    written.push_back(directory / name);
    write_file(written.back(), text);
  };
  const Chart by_flops = loss_chart(comparison, LossAgainst::flops);
  const Chart by_tokens = loss_chart(comparison, LossAgainst::tokens);
  if (!by_flops.series.empty()) write("loss_curves.svg", svg_of(by_flops, SvgUse::file));
  if (!by_tokens.series.empty()) write("loss_by_tokens.svg", svg_of(by_tokens, SvgUse::file));
  write("report.html", report_html(comparison));
  write("report.json", report_json(comparison));
  return written;
}

}  // namespace

int report_main(const ReportOptions& options, std::ostream& out) {
  if (options.runs.empty()) throw Error("report needs at least one run directory");
  std::vector<RunRecord> runs;
  for (const auto& directory : options.runs) runs.push_back(read_run(directory));
  const Comparison comparison = compare(std::move(runs));
  std::vector<std::filesystem::path> written;
  if (!options.output.empty()) written = write_files(options.output, comparison);
  if (options.format == ReportFormat::json) {
    out << report_json(comparison);
    return 0;
  }
  print_report(out, comparison);
  if (!written.empty()) out << '\n';
  for (const auto& path : written) out << "  wrote " << path.string() << '\n';
  return 0;
}

}  // namespace convoy
