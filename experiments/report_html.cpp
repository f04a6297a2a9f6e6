#include "experiments/report_html.h"

#include <fmt/format.h>

#include <string_view>

#include "experiments/loss_charts.h"
#include "experiments/report_table.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

// On a phone each table row becomes a card, and a chart drawn for that width replaces the wide one.
constexpr std::string_view kStyle = R"(
body { margin: 0 auto; max-width: 1120px; padding: 20px 16px 48px; background: #fff; color: #222;
  font: 15px/1.5 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }
h1 { font-size: 24px; margin: 8px 0; }
h2 { font-size: 18px; margin: 36px 0 10px; }
.lead { font-size: 17px; margin: 6px 0; }
.quiet { color: #666; }
svg { display: block; width: 100%; height: auto; margin: 12px 0; }
.wide { max-width: 860px; }
.narrow { display: none; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e4e4e4; }
th { color: #666; font-weight: 500; font-size: 13px; border-bottom: 1px solid #999; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
details { border-bottom: 1px solid #e4e4e4; padding: 8px 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
pre { background: #f6f6f6; padding: 12px; overflow-x: auto; font-size: 13px; }
li { overflow-wrap: anywhere; }
@media (max-width: 640px) {
  .wide { display: none; }
  .narrow { display: block; }
  table, tbody, tr, td { display: block; }
  thead { display: none; }
  tr { border: 1px solid #ddd; border-radius: 6px; margin: 0 0 12px; padding: 6px 0; }
  td { display: flex; justify-content: space-between; gap: 16px; border: 0; padding: 3px 12px; }
  td:first-child { font-weight: 600; display: block; }
  td:not(:first-child)::before { content: attr(data-label); color: #666; }
}
)";

std::string html_table(const TextTable& table) {
  std::string out = "<div class=\"scroll\"><table>\n<thead><tr>";
  for (const auto& heading : table.headings) out += "<th>" + escape_xml(heading) + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i)
      out += fmt::format("<td data-label=\"{}\">{}</td>", escape_xml(table.headings[i]),
                         escape_xml(row[i]));
    out += "</tr>\n";
  }
  return out + "</tbody>\n</table></div>\n";
}

std::string section(std::string_view heading, const std::string& body) {
  return body.empty() ? "" : fmt::format("<h2>{}</h2>\n{}", escape_xml(heading), body);
}

// The result in a sentence for each arm, with its uncertainty or the lack of it.
std::string lead_sentence(const PairedDifference& d) {
  const std::string compute = d.equal_flops ? "at equal training FLOPs"
                                            : fmt::format("at {:.3f} x the FLOPs", d.flops_ratio);
  const std::string spread =
      d.loss.interval ? fmt::format("{} seeds, 95 % interval {:+.4f} to {:+.4f}", d.loss.n,
                                    d.loss.interval->low, d.loss.interval->high)
                      : "one seed: no spread";
  return fmt::format("<p class=\"lead\">{} ends {} nats {} {}, {} ({}).</p>\n", escape_xml(d.arm),
                     fixed(std::abs(d.loss.mean), 4), d.loss.mean < 0 ? "below" : "above",
                     escape_xml(d.reference), compute, spread);
}

std::string lead(const Comparison& comparison) {
  std::string out;
  for (const PairedDifference& d : comparison.differences) out += lead_sentence(d);
  if (comparison.arms.empty()) out = "<p class=\"lead\">No run has finished yet.</p>\n";
  return out +
         "<p class=\"quiet\">Loss is the mean negative log-likelihood of the validation text, "
         "in nats per token; lower is better.</p>\n";
}

// Each chart twice: as wide as a desk and as narrow as a phone.
std::string charts(const Comparison& comparison) {
  std::string out;
  for (const LossAgainst against : {LossAgainst::flops, LossAgainst::tokens}) {
    Chart chart = loss_chart(comparison, against);
    if (chart.series.empty()) continue;
    out += "<div class=\"wide\">" + svg_of(chart, SvgUse::html) + "</div>\n";
    chart.width = 390;
    chart.height = 420;
    out += "<div class=\"narrow\">" + svg_of(chart, SvgUse::html) + "</div>\n";
  }
  return out;
}

std::string difference_section(const Comparison& comparison) {
  if (comparison.differences.empty()) return "";
  return section("Paired differences from " + comparison.differences.front().reference,
                 "<p class=\"quiet\">The same seed in both arms; negative is better.</p>\n" +
                     html_table(difference_table(comparison)));
}

std::string notes(const Comparison& comparison) {
  std::string items;
  for (const std::string& line : cautions(comparison))
    items += "<li>" + escape_xml(line) + "</li>\n";
  return items.empty() ? "" : "<ul>\n" + items + "</ul>\n";
}

std::string run_details(const RunRecord& run) {
  const std::string command =
      fmt::format("launch/run_mpi -n {} build/cpu/convoy train {} --output NEW_DIRECTORY",
                  run.ranks, (run.directory / "config.toml").string());
  std::string facts = fmt::format("{} seed {}, {} ranks", run.arch, run.seed, run.ranks);
  if (!run.device.empty()) facts += ", " + run.device;
  if (!run.git.empty()) facts += ", source " + run.git;
  return fmt::format(
      "<details><summary>{}</summary>\n<p>{}. Again:</p>\n<pre>{}</pre>\n"
      "<p>Its settings, with every default written out:</p>\n<pre>{}</pre>\n"
      "</details>\n",
      escape_xml(run.name), escape_xml(facts), escape_xml(command), escape_xml(run.config));
}

}  // namespace

std::string report_html(const Comparison& comparison) {
  std::string details;
  for (const RunRecord& run : comparison.runs) details += run_details(run);
  const std::string arms = comparison.arms.empty() ? "" : html_table(arm_table(comparison));
  return fmt::format(
             "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
             "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
             "<title>Training report</title>\n<style>{}</style>\n</head>\n<body>\n"
             "<h1>Training report</h1>\n",
             kStyle) +
         lead(comparison) + charts(comparison) +
         section("Runs", html_table(run_table(comparison))) + section("Arms, over seeds", arms) +
         difference_section(comparison) + section("Notes", notes(comparison)) +
         section("Settings of each run", details) + "</body>\n</html>\n";
}

}  // namespace convoy
