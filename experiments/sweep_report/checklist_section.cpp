// What a scaling study should state, and whether this one does.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "experiments/fit/fit_words.h"
#include "experiments/sweep_report/html.h"
#include "experiments/sweep_report/sections.h"
#include "experiments/text_format.h"

namespace convoy {
namespace {

// An empty statement is a missing one; then `otherwise` says what would mend it.
struct Item {
  std::string question;
  std::string statement;
  std::string otherwise;
};

struct Extent {
  double low = INFINITY, high = -INFINITY;
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool known() const { return low <= high; }
};

std::string joined(const std::set<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

template <class Of>
std::set<std::string> values(const SweepData& data, const Of& of) {
  std::set<std::string> found;
  for (const ReportedRun& run : data.runs)
    if (const std::string value = of(run); run.started && !value.empty()) found.insert(value);
  return found;
}

template <class Of>
Extent extent(const SweepData& data, const Of& of) {
  Extent result;
  for (const ReportedRun& run : data.runs)
    if (run.started) result.add(of(run));
  return result;
}

std::string range_text(const Extent& extent, const std::string& unit) {
  if (!extent.known()) return "";
  if (extent.low == extent.high) return compact(extent.low) + unit;
  return compact(extent.low) + " to " + compact(extent.high) + unit;
}

Item flops(const SweepData& data) {
  const auto conventions = values(data, [](const auto& run) { return run.row.flop_convention; });
  std::string text;
  if (!conventions.empty())
    text = joined(conventions) + (conventions.contains("parts")
                                      ? ": every matmul, attention, head and convolution counted; "
                                        "training = 3 x forward"
                                      : "");
  return {"How FLOPs are counted", text, "the table has no column flop_convention"};
}

Item parameters(const SweepData& data) {
  return {"Which parameters N counts", data.study ? data.study->param_convention : "",
          "study.json is missing; N is the table's column"};
}

Item matching(const SweepData& data) {
  if (!data.study) return {"What is held equal between arms", "", "study.json is missing"};
  Extent ratio;
  for (const ReportedRun& run : data.runs)
    if (run.started && run.target_flops > 0 && run.row.status == "done")
      ratio.add(run.row.C / run.target_flops);
  std::string text = fmt::format("{}, by changing {}", data.study->match, data.study->match_by);
  if (ratio.known())
    text += fmt::format("; C / target from {:.4f} to {:.4f}, tolerance {:.3g}", ratio.low,
                        ratio.high, data.study->flops_tolerance);
  return {"What is held equal between arms", text, ""};
}

Item range(const SweepAnalysis& analysis) {
  const auto units = seed_means(analysis.usable);
  if (units.empty()) return {"Range of sizes and compute", "", "no usable run"};
  Extent n, ratio;
  for (const Unit& unit : units) {
    n.add(unit.N);
    ratio.add(unit.D / unit.N);
  }
  return {"Range of sizes and compute",
          fmt::format("{} sizes, N {}; D/N {:.3g} to {:.3g}; {:.2f} decades of C",
                      distinct_sizes(units), range_text(n, ""), ratio.low, ratio.high,
                      decades_of_compute(units)),
          ""};
}

Item data_used(const SweepData& data) {
  const Extent unique = extent(data, [](const auto& run) { return run.unique_tokens; });
  const Extent epochs =
      extent(data, [](const auto& run) { return run.epochs > 0 ? run.epochs : NAN; });
  std::string text = range_text(unique, " distinct tokens");
  if (!text.empty() && epochs.known())
    text += fmt::format("; {:.2f} to {:.2f} passes over the data", epochs.low, epochs.high);
  return {"Distinct tokens, and passes over them", text, "the tables do not say"};
}

Item learning_rate(const SweepData& data, const SweepAnalysis& analysis) {
  const std::string question = "How the learning rate was chosen, for each arm";
  const std::string rule = data.study ? data.study->lr_rule : "";
  const bool searched = std::any_of(
      analysis.exclusions.begin(), analysis.exclusions.end(),
      [](const auto& excluded) { return excluded.reason.starts_with("its learning rate"); });
  std::string text = rule.empty() ? "" : "the rule " + rule;
  if (searched)
    text += (text.empty() ? "" : "; ") + std::string("several rates tried, the best kept");
  for (const std::string& warning : analysis.lr_warnings) text += "; " + warning;
  if (text.empty()) return {question, "", "no rule and no search is recorded"};
  if (!searched) text += "; no search in this sweep: it rests on the rule";
  return {question, text, ""};
}

Item schedule(const SweepData& data) {
  const auto kinds = values(data, [](const auto& run) { return run.schedule; });
  const Extent batch = extent(data, [](const auto& run) { return run.batch_tokens; });
  std::string text = joined(kinds);
  if (data.study && !data.study->warmup_rule.empty())
    text += "; warm-up of " + data.study->warmup_rule + " tokens";
  if (!text.empty() && batch.known()) text += "; batch " + range_text(batch, " tokens");
  return {"Schedule, warm-up and batch", text, "the table has no column schedule"};
}

Item seeds(const SweepAnalysis& analysis) {
  const auto units = seed_means(analysis.usable);
  if (units.empty()) return {"Seeds and their noise", "", "no usable run"};
  Extent count;
  for (const Unit& unit : units) count.add(unit.seeds);
  const auto noise = seed_noise(analysis.usable);
  if (!noise)
    return {"Seeds and their noise", "",
            "one seed of each: the noise of a run is not known. Train at least one size with "
            "three seeds"};
  return {"Seeds and their noise",
          fmt::format("{} a point; sd {:.5f} in ln loss ({} degrees of freedom)",
                      range_text(count, " seeds"), noise->sd, noise->freedom),
          ""};
}

// Of every arm: what `say` makes of its fit, or nothing at all if one arm has nothing to say.
template <class Say>
std::string of_all_fits(const SweepAnalysis& analysis, const Say& say) {
  std::string text;
  for (const ArmFit& arm : analysis.fits) {
    const std::string words = arm.fit ? say(*arm.fit) : "";
    if (words.empty()) return "";
    text += (text.empty() ? "" : "; ") + arm_name(arm.arm) + ": " + words;
  }
  return text;
}

std::vector<Item> fit_items(const SweepAnalysis& analysis) {
  return {
      {"Law, loss, convergence",
       of_all_fits(analysis,
                   [](const FitResult& fit) {
                     return fmt::format("{}, {}, {} of {} starts agree", fit.law,
                                        fit.loss == Loss::huber ? "Huber(1e-3)" : "mse",
                                        fit.starts_agreeing, fit.starts);
                   }),
       "not every arm has a fit"},
      {"Intervals and correlations of the parameters",
       of_all_fits(analysis,
                   [](const FitResult& fit) -> std::string {
                     return fit.correlations.empty() ? "" : "by " + fit.interval_method;
                   }),
       "not every arm's fit has them"},
      {"Error on a size that was held out",
       of_all_fits(analysis,
                   [](const FitResult& fit) -> std::string {
                     if (!fit.held_out) return "";
                     return percent(std::log(fit.held_out->observed / fit.held_out->predicted)) +
                            " in ln loss at " + fit.held_out->size;
                   }),
       "not every arm has one"},
      {"Prediction beyond the table, with an interval",
       of_all_fits(analysis,
                   [](const FitResult& fit) -> std::string {
                     if (!fit.beyond.new_point) return "";
                     return fmt::format("{} at C {}, 95 % of a run {}",
                                        fixed(fit.beyond.predicted, 4), scientific(fit.beyond.C),
                                        interval_text(fit.beyond.new_point, 4));
                   }),
       "not every arm has one"}};
}

std::vector<Item> comparison_items(const SweepAnalysis& analysis) {
  std::string advantage, cost, clock;
  std::string no_advantage = analysis.no_comparison, no_cost, no_clock;
  if (analysis.comparison)
    for (const ArmAdvantage& arm : analysis.comparison->arms) {
      const auto add = [&](std::string& text, std::string& otherwise, const Advantage& a) {
        if (std::isfinite(a.estimate) && a.interval)
          text += (text.empty() ? "" : "; ") + arm.arm + ": " + advantage_text(a);
        else
          otherwise += (otherwise.empty() ? "" : "; ") + arm.arm + ": " + a.note;
      };
      add(advantage, no_advantage, arm.joint.advantage);
      add(clock, no_clock, arm.wall_clock);
      if (std::isfinite(arm.cost.mean_overhead))
        cost += (cost.empty() ? "" : "; ") + arm.arm + ": " + percent(arm.cost.mean_overhead);
      else
        no_cost += (no_cost.empty() ? "" : "; ") + arm.arm + ": " + arm.cost.no_overhead;
    }
  const auto reason = [&](const std::string& text) {
    return text.empty() ? analysis.no_comparison : text;
  };
  return {{"Compute advantage with an interval", advantage, reason(no_advantage)},
          {"What the arm itself costs in FLOPs", cost, reason(no_cost)},
          {"Advantage on the clock, on one kind of device", clock, reason(no_clock)}};
}

std::vector<Item> record_items(const SweepData& data, const SweepAnalysis& analysis) {
  const auto devices = values(data, [](const auto& run) { return run.row.device; });
  const auto sources = values(data, [](const auto& run) { return run.git; });
  const Extent error = extent(data, [](const auto& run) { return run.loss_se; });
  return {{"Standard error of the validation loss over the text",
           error.known() ? fmt::format("{:.2g} to {:.2g} nats", error.low, error.high) : "",
           "the table has no val_loss_se"},
          {"Runs left out, with reasons",
           analysis.exclusions.empty()
               ? std::string("none was left out")
               : fmt::format("{}, each named below", analysis.exclusions.size()),
           ""},
          {"Version of the source", joined(sources), "no run recorded one"},
          {"Hardware", joined(devices), "no run recorded it"},
          {"The command of every run", data.study ? "in the table of runs" : "",
           "study.json is missing"}};
}

std::string row_of(const Item& item) {
  const bool stated = !item.statement.empty();
  return fmt::format("<li class=\"{}\"><b>{}</b> <span>{}</span></li>\n",
                     stated ? "stated" : "open", escape_xml(item.question),
                     escape_xml(stated ? item.statement : "Not stated: " + item.otherwise));
}

}  // namespace

std::string checklist_section(const SweepData& data, const SweepAnalysis& analysis) {
  std::vector<Item> items = {flops(data),     parameters(data), matching(data),
                             range(analysis), data_used(data),  learning_rate(data, analysis),
                             schedule(data),  seeds(analysis)};
  for (const auto& more :
       {fit_items(analysis), comparison_items(analysis), record_items(data, analysis)})
    items.insert(items.end(), more.begin(), more.end());
  std::string list;
  for (const Item& item : items) list += row_of(item);
  const auto stated = std::count_if(items.begin(), items.end(),
                                    [](const Item& item) { return !item.statement.empty(); });
  std::string body = paragraph(fmt::format("{} of {} are stated.", stated, items.size())) +
                     "<ul class=\"checklist\">\n" + list + "</ul>\n";
  if (data.study && !data.study->warnings.empty())
    body += "<h3>Warnings of the plan</h3>\n" + bullets(data.study->warnings);
  return section("checklist", "What a scaling study should state", body);
}

}  // namespace convoy
