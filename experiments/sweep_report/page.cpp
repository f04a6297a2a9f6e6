#include "experiments/sweep_report/page.h"

#include <fmt/format.h>

#include <array>
#include <ostream>

#include "core/error.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/page_assets.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"
#include "launch/files.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

// The browser itself refuses whatever would come from outside.
constexpr const char* kHead = R"(<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
)";

std::string navigation() {
  static constexpr std::array<std::array<const char*, 2>, 9> kLinks = {
      {{"curves", "Curves"},
       {"isoflop", "Iso-FLOP"},
       {"fits", "Fits"},
       {"advantage", "Advantage"},
       {"residuals", "Residuals"},
       {"throughput", "Throughput"},
       {"checklist", "Checklist"},
       {"exclusions", "Left out"},
       {"runs", "Runs"}}};
  std::string links;
  for (const auto& [id, text] : kLinks) links += fmt::format("<a href=\"#{}\">{}</a>\n", id, text);
  return "<nav>\n" + links + "</nav>\n";
}

}  // namespace

std::string sweep_page(const SweepData& data, const SweepAnalysis& analysis) {
  const std::string name = escape_xml(data.name);
  std::string page = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n{}<title>{}: report</title>\n<style>\n{}"
      "</style>\n</head>\n<body>\n<h1>{}</h1>\n",
      kHead, name, report_style(), name);
  page += summary_section(data, analysis) + navigation();
  page += curves_section(data, analysis) + isoflop_section(data, analysis);
  page += fit_section(analysis) + advantage_section(analysis) + residual_section(analysis);
  page += throughput_section(data, analysis) + checklist_section(data, analysis);
  page += exclusions_section(analysis) + runs_section(data, analysis);
  return page + "<script>\n" + std::string(report_script()) + "</script>\n</body>\n</html>\n";
}

bool is_sweep(const fs::path& source) {
  if (fs::is_directory(source))
    return fs::exists(source / "runs.csv") || fs::exists(source / "study.json");
  const std::string ending = source.extension().string();
  return ending == ".csv" || ending == ".jsonl" || ending == ".ndjson";
}

void report_sweep(const fs::path& source, fs::path page, std::ostream& out) {
  const SweepData data = read_sweep(source);
  if (page.empty()) {
    if (!fs::is_directory(source))
      throw Error(concat("--output DIR is needed: ", source.string(),
                         " is a table, and the page needs a place"));
    page = source / "report.html";
  }
  const SweepAnalysis analysis = analyse(data);
  fs::create_directories(fs::absolute(page).parent_path());
  replace_text(page, sweep_page(data, analysis));
  out << fmt::format("{}: {} runs, {} of them in the fits, {} left out\n", data.name,
                     data.runs.size(), analysis.usable.size(), analysis.exclusions.size());
  out << "  wrote " << page.string() << '\n';
}

}  // namespace convoy
