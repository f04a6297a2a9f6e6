#include "experiments/report_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ostream>

#include "core/error.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

std::string count(double value) {
  return std::isfinite(value) ? grouped(std::llround(value)) : "-";
}

std::string sd_of(const Estimate& value) { return value.sd ? fixed(*value.sd, 4) : "-"; }

std::string interval_of(const Estimate& value) {
  if (!value.interval) return "-";
  return signed_fixed(value.interval->low, 4) + " .. " + signed_fixed(value.interval->high, 4);
}

std::vector<std::string> run_row(const RunRecord& run) {
  return {run.name,
          std::to_string(run.seed),
          grouped(run.parameters),
          grouped(run.steps),
          count(run.tokens),
          scientific(run.flops),
          fixed(run.val_loss, 4),
          fixed(run.val_bits_per_byte, 4),
          count(steady_tokens_per_s(run)),
          run.status};
}

std::vector<std::string> difference_row(const PairedDifference& pair, const std::string& measure,
                                        const Estimate& difference) {
  return {pair.arm,
          measure,
          std::to_string(difference.n),
          signed_fixed(difference.mean, 4),
          sd_of(difference),
          interval_of(difference),
          fmt::format("{:.3f} x", pair.flops_ratio),
          verdict(difference)};
}

// Of a task without text, where bits per byte mean nothing.
std::string accuracy_note(const RunRecord& run) {
  if (run.eval.empty() || std::isfinite(run.val_bits_per_byte)) return "";
  const EvalRecord& last = run.eval.back();
  if (std::isnan(last.val_accuracy)) return "";
  std::string text = fmt::format("{}: accuracy {:.4f}", run.name, last.val_accuracy);
  if (!std::isnan(last.last_token_accuracy))
    text += fmt::format(" (by the last token alone {:.4f})", last.last_token_accuracy);
  return text;
}

void print_section(std::ostream& out, const std::string& heading, const TextTable& table) {
  if (table.rows.empty()) return;
  out << '\n' << heading << '\n';
  print_table(out, table);
}

}  // namespace

TextTable run_table(const Comparison& comparison) {
  TextTable table{{"run", "seed", "parameters", "steps", "tokens", "training FLOPs", "loss (nats)",
                   "bits/byte", "tokens/s", "status"},
                  {}};
  for (const RunRecord& run : comparison.runs) table.rows.push_back(run_row(run));
  return table;
}

TextTable arm_table(const Comparison& comparison) {
  TextTable table{{"arm", "seeds", "training FLOPs", "loss (nats)", "loss sd", "bits/byte",
                   "bits sd", "tokens/s"},
                  {}};
  for (const Arm& arm : comparison.arms)
    table.rows.push_back({arm.label, std::to_string(arm.loss.n), scientific(arm.flops.mean),
                          fixed(arm.loss.mean, 4), sd_of(arm.loss),
                          fixed(arm.bits_per_byte.mean, 4), sd_of(arm.bits_per_byte),
                          count(arm.tokens_per_s.mean)});
  return table;
}

TextTable difference_table(const Comparison& comparison) {
  TextTable table{
      {"arm", "measure", "pairs", "difference", "sd", "95 % interval", "FLOPs", "verdict"}, {}};
  for (const PairedDifference& d : comparison.differences) {
    table.rows.push_back(difference_row(d, "loss (nats)", d.loss));
    table.rows.push_back(difference_row(d, "bits/byte", d.bits_per_byte));
  }
  return table;
}

std::vector<std::string> cautions(const Comparison& comparison) {
  std::vector<std::string> lines;
  for (const ExcludedRun& exclusion : comparison.exclusions)
    lines.push_back(concat("left out: ", exclusion.run, ": ", exclusion.reason));
  for (const PairedDifference& d : comparison.differences)
    if (!d.equal_flops)
      lines.push_back(
          fmt::format("{} used {:.3f} x the training FLOPs of {}: this is not a "
                      "comparison at equal compute",
                      d.arm, d.flops_ratio, d.reference));
  for (const RunRecord& run : comparison.runs) {
    const std::string accuracy = accuracy_note(run);
    if (!accuracy.empty()) lines.push_back(accuracy);
  }
  for (const RunRecord& run : comparison.runs)
    for (const std::string& note : run.notes) lines.push_back(concat(run.name, ": ", note));
  return lines;
}

void print_table(std::ostream& out, const TextTable& table) {
  std::vector<std::size_t> widths;
  for (std::size_t column = 0; column < table.headings.size(); ++column) {
    std::size_t width = display_width(table.headings[column]);
    for (const auto& row : table.rows) width = std::max(width, display_width(row[column]));
    widths.push_back(width);
  }
  const auto print_row = [&](const std::vector<std::string>& cells) {
    out << "  " << cells[0] << std::string(widths[0] - display_width(cells[0]), ' ');
    for (std::size_t i = 1; i < cells.size(); ++i)
      out << "  " << std::string(widths[i] - display_width(cells[i]), ' ') << cells[i];
    out << '\n';
  };
  print_row(table.headings);
  for (const auto& row : table.rows) print_row(row);
}

void print_report(std::ostream& out, const Comparison& comparison) {
  print_section(out, "Runs", run_table(comparison));
  print_section(out, "Arms (mean and sample standard deviation over seeds)", arm_table(comparison));
  if (!comparison.differences.empty())
    print_section(out,
                  "Paired differences from " + comparison.differences.front().reference +
                      " (same seed; negative is better)",
                  difference_table(comparison));
  const auto lines = cautions(comparison);
  if (!lines.empty()) out << '\n';
  for (const std::string& line : lines) out << "  note: " << line << '\n';
}

}  // namespace convoy
