#include <fmt/format.h>

#include <cmath>
#include <map>

#include "experiments/fit/fit_words.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

std::string count_of_states(const SweepData& data) {
  std::map<std::string, int> counts;
  for (const ReportedRun& run : data.runs)
    ++counts[run.row.status.empty() ? "without a status" : run.row.status];
  std::string text;
  for (const auto& [state, count] : counts)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, state);
  return text;
}

std::string headline(const ArmAdvantage& arm, const std::string& reference) {
  const Advantage& m = arm.joint.advantage;
  if (!std::isfinite(m.estimate) || !m.interval)
    return fmt::format("{}: no compute advantage over {} is given, because {}.", arm.arm, reference,
                       m.note.empty() ? "it has no interval" : m.note);
  const std::string verdict =
      m.interval->low > 1 ? arm.arm + " needs less compute than " + reference + " for an equal loss"
      : m.interval->high < 1
          ? arm.arm + " needs more compute than " + reference + " for an equal loss"
          : arm.arm + " and " + reference + " cannot be told apart";
  return fmt::format("{}: {} takes {:.3f} x its FLOPs, 95 % interval {}.", verdict, reference,
                     m.estimate, interval_text(m.interval, 3));
}

}  // namespace

std::string summary_section(const SweepData& data, const SweepAnalysis& analysis) {
  std::string out;
  if (analysis.comparison)
    for (const ArmAdvantage& arm : analysis.comparison->arms)
      out += "<p class=\"lead\">" + escape_xml(headline(arm, analysis.comparison->reference)) +
             "</p>\n";
  else
    out +=
        "<p class=\"lead\">No arms are compared: " + escape_xml(analysis.no_comparison) + "</p>\n";
  out += paragraph(fmt::format(
      "{} runs: {}. In the fits: {}. Left out, each named below with its reason: {}.",
      data.runs.size(), count_of_states(data), analysis.usable.size(), analysis.exclusions.size()));
  out += quiet(
      "Loss is the mean negative log-likelihood of the validation text, in nats per token; N "
      "parameters, D training tokens, C training FLOPs.");
  for (const std::string& line : data.missing) out += missing(line);
  return "<section id=\"summary\">\n" + out + "</section>\n";
}

}  // namespace convoy
