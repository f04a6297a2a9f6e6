#include <fmt/format.h>

#include <cmath>
#include <set>

#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

std::string count(double value) {
  return std::isfinite(value) ? grouped(std::llround(value)) : "-";
}

std::string three(double value) {
  return std::isfinite(value) ? fmt::format("{:.3g}", value) : "-";
}

std::vector<std::string> cells_of(const ReportedRun& run, bool in_fits) {
  const RunRow& row = run.row;
  return {row.status.empty() ? "-" : row.status,
          in_fits ? "yes" : "no",
          arm_name(row.arch),
          row.size,
          row.seed ? std::to_string(*row.seed) : "-",
          compact(row.N),
          compact(row.D),
          scientific(row.C),
          count(run.steps),
          three(run.peak_lr),
          count(run.batch_tokens),
          fixed(row.loss, 4),
          fixed(run.bits_per_byte, 4),
          fixed(row.wall_s, 1)};
}

std::string row_of(const ReportedRun& run, bool in_fits) {
  std::string out = "<tr><td>" + escape_xml(label_of(run.row)) + "</td>";
  for (const std::string& cell : cells_of(run, in_fits)) out += "<td>" + escape_xml(cell) + "</td>";
  const std::string command =
      run.command.empty() ? "not recorded" : "<code>" + escape_xml(run.command) + "</code>";
  return out + "<td class=\"command\">" + command + "</td></tr>\n";
}

}  // namespace

std::string runs_section(const SweepData& data, const SweepAnalysis& analysis) {
  std::set<int> lines;  // of the table: a duplicate has the name of the run that stays
  for (const RunRow& run : analysis.usable) lines.insert(run.line);
  std::string out = "<div class=\"scroll\"><table class=\"runs\">\n<thead><tr><th>run</th>";
  for (const char* heading : {"status", "in fits", "arm", "size", "seed", "N", "D", "C", "steps",
                              "peak LR", "batch", "loss", "bits/byte", "seconds", "command"})
    out += fmt::format("<th>{}</th>", heading);
  out += "</tr></thead>\n<tbody>\n";
  for (const ReportedRun& run : data.runs)
    out += row_of(run, run.started && lines.contains(run.row.line));
  return section("runs", "Every run",
                 out + "</tbody>\n</table></div>\n" +
                     quiet("N, D and C of a run that never started are those of the plan. The "
                           "command trains the run, or goes on with it; it wants the run's "
                           "folder in the store, which `convoy sweep run` makes."));
}

std::string exclusions_section(const SweepAnalysis& analysis) {
  if (analysis.exclusions.empty())
    return section("exclusions", "Left out", paragraph("Nothing: every run stands in the fits."));
  std::string items;
  for (const ExcludedRun& excluded : analysis.exclusions)
    items += fmt::format("<li><b>{}</b>: {}</li>\n", escape_xml(excluded.run),
                         escape_xml(excluded.reason));
  return section("exclusions", "Left out", "<ul>\n" + items + "</ul>\n");
}

}  // namespace convoy
