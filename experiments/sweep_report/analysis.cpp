#include "experiments/sweep_report/analysis.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "core/error.h"

namespace convoy {
namespace {

// Runs that differ in the learning rate alone (and the seed) are a search for it.
using SearchKey = std::tuple<std::string, std::string, double, double>;  // arm, size, N, D
struct Tried {
  double loss_sum = 0;
  int runs = 0;
  double loss() const { return loss_sum / runs; }
};
using Search = std::map<double, Tried>;  // by learning rate

bool has_result(const RunRow& run) {
  return run.status == "done" && std::isfinite(run.loss) && run.loss > 0;
}

SearchKey key_of(const RunRow& run) { return {run.arch, run.size, run.N, run.D}; }

double best_rate(const Search& search) {
  const auto best = std::min_element(
      search.begin(), search.end(),
      [](const auto& a, const auto& b) { return a.second.loss() < b.second.loss(); });
  return best->first;
}

// The runs at the best learning rate of each search; the others are named as left out.
std::vector<RunRow> best_learning_rates(const SweepData& data, SweepAnalysis& result) {
  std::map<SearchKey, Search> searches;
  for (const ReportedRun& run : data.runs) {
    if (!run.started || !has_result(run.row) || !std::isfinite(run.peak_lr)) continue;
    Tried& tried = searches[key_of(run.row)][run.peak_lr];
    tried.loss_sum += run.row.loss;
    ++tried.runs;
  }
  std::vector<RunRow> kept;
  for (const ReportedRun& run : data.runs) {
    if (!run.started) continue;
    const auto search = searches.find(key_of(run.row));
    const bool searched = search != searches.end() && search->second.size() > 1;
    if (!searched || !has_result(run.row) || run.peak_lr == best_rate(search->second))
      kept.push_back(run.row);
    else
      result.exclusions.push_back(
          {label_of(run.row),
           fmt::format("its learning rate {:.3g} is not the best of {} tried: "
                       "{:.3g} is",
                       run.peak_lr, search->second.size(), best_rate(search->second))});
  }
  for (const auto& [key, search] : searches) {
    const double best = best_rate(search);
    if (search.size() < 2 || (best != search.begin()->first && best != search.rbegin()->first))
      continue;
    result.lr_warnings.push_back(fmt::format(
        "{}, size {}: the best of {} learning rates, {:.3g}, is at the edge of those tried",
        std::get<0>(key), std::get<1>(key), search.size(), best));
  }
  return kept;
}

// Reasons in the words of the run itself, where it left any, and runs that have no row at all.
void complete_exclusions(const SweepData& data, std::vector<ExcludedRun>& exclusions) {
  for (ExcludedRun& excluded : exclusions)
    for (const ReportedRun& run : data.runs)
      if (run.row.run_id == excluded.run && !run.message.empty() && run.row.status != "done")
        excluded.reason += ": " + run.message;
  for (const ReportedRun& run : data.runs) {
    if (run.started) continue;
    const std::string why = run.message.empty() ? "" : ": " + run.message;
    exclusions.push_back(
        {run.row.run_id, run.row.status == "planned"
                             ? "planned, never started"
                             : concat(run.row.status, ", without a row in runs.csv", why)});
  }
}

std::vector<std::string> arms_of(const std::vector<RunRow>& runs, const std::string& reference) {
  std::vector<std::string> arms;
  for (const RunRow& run : runs)
    if (std::find(arms.begin(), arms.end(), run.arch) == arms.end()) arms.push_back(run.arch);
  const auto first = std::find(arms.begin(), arms.end(), reference);
  if (first != arms.end()) std::rotate(arms.begin(), first, first + 1);
  return arms;
}

FitOptions options_of(const std::optional<Study>& study) {
  FitOptions options;
  if (!study) return options;
  options.law = study->law == "power" ? LawKind::power : LawKind::chinchilla;
  options.loss = study->loss == "mse" ? Loss::mse : Loss::huber;
  options.holdout = study->holdout != "none";
  return options;
}

ArmFit fit_of(const std::vector<RunRow>& runs, const std::string& arm, FitOptions options,
              bool law_is_given) {
  ArmFit result{.arm = arm};
  std::vector<RunRow> own;
  for (const RunRow& run : runs)
    if (run.arch == arm) own.push_back(run);
  try {
    result.fit = fit(own, options);
  } catch (const Error& error) {
    result.refusal = error.what();
  }
  if (result.fit || law_is_given || options.law == LawKind::power) return result;
  options.law = LawKind::power;
  ArmFit second = fit_of(runs, arm, options, true);
  return second.fit ? second : result;
}

}  // namespace

SweepAnalysis analyse(const SweepData& data) {
  SweepAnalysis result;
  Runs table = data.table;
  table.rows = best_learning_rates(data, result);
  Screened screened = screen(table.rows);
  result.exclusions.insert(result.exclusions.end(), screened.exclusions.begin(),
                           screened.exclusions.end());
  complete_exclusions(data, result.exclusions);
  result.usable = screened.runs;
  const std::string reference = data.study ? data.study->reference : "";
  result.arms = arms_of(result.usable, reference);
  for (const std::string& arm : result.arms)
    result.fits.push_back(
        fit_of(result.usable, arm, options_of(data.study), data.study.has_value()));
  table.rows = result.usable;
  try {
    result.comparison = compare_arms(table, {.reference = reference, .speeds = data.speeds});
  } catch (const Error& error) {
    result.no_comparison = error.what();
  }
  return result;
}

}  // namespace convoy
