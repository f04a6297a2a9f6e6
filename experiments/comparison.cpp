#include "experiments/comparison.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include "core/error.h"

namespace convoy {
namespace {

// Why this run cannot stand in a comparison; nothing where it can.
std::optional<std::string> unusable(const RunRecord& run) {
  const std::string why = run.message.empty() ? "" : ": " + run.message;
  if (run.status == "running")
    return concat("unfinished: still running, or killed, at step ", run.steps);
  if (run.status == "interrupted")
    return concat("interrupted at step ", run.steps, "; `--resume auto` continues it");
  if (run.status != "done") return concat(run.status, " at step ", run.steps, why);
  if (!std::isfinite(run.val_loss)) return "done, but without a final validation loss";
  return std::nullopt;
}

Arm& arm_of(Comparison& comparison, const std::string& label) {
  auto at = std::find_if(comparison.arms.begin(), comparison.arms.end(),
                         [&](const Arm& arm) { return arm.label == label; });
  if (at != comparison.arms.end()) return *at;
  comparison.arms.push_back({.label = label});
  return comparison.arms.back();
}

std::optional<std::size_t> run_with_seed(const Comparison& all, const Arm& arm, long long seed) {
  for (const std::size_t index : arm.runs)
    if (all.runs[index].seed == seed) return index;
  return std::nullopt;
}

// Puts each usable run into its arm; a second run of one arm and seed would count one seed twice.
void group_into_arms(Comparison& all) {
  for (std::size_t i = 0; i < all.runs.size(); ++i) {
    const RunRecord& run = all.runs[i];
    if (const auto reason = unusable(run)) {
      all.exclusions.push_back({run.name, *reason});
      continue;
    }
    Arm& arm = arm_of(all, run.arch);
    if (const auto twin = run_with_seed(all, arm, run.seed))
      all.exclusions.push_back({run.name, concat("a second run of ", run.arch, " with seed ",
                                                 run.seed, ", beside ", all.runs[*twin].name)});
    else
      arm.runs.push_back(i);
  }
}

using Measure = std::function<double(const RunRecord&)>;

Estimate estimate_over(const Comparison& all, const Arm& arm, const Measure& measure) {
  std::vector<double> values;
  for (const std::size_t index : arm.runs) values.push_back(measure(all.runs[index]));
  return estimate(values);
}

double loss_of(const RunRecord& run) { return run.val_loss; }
double bits_of(const RunRecord& run) { return run.val_bits_per_byte; }
double flops_of(const RunRecord& run) { return run.flops; }

void summarize(const Comparison& all, Arm& arm) {
  std::sort(arm.runs.begin(), arm.runs.end(),
            [&](std::size_t a, std::size_t b) { return all.runs[a].seed < all.runs[b].seed; });
  arm.loss = estimate_over(all, arm, loss_of);
  arm.bits_per_byte = estimate_over(all, arm, bits_of);
  arm.tokens_per_s = estimate_over(all, arm, steady_tokens_per_s);
  arm.flops = estimate_over(all, arm, flops_of);
}

using Pair = std::pair<const RunRecord*, const RunRecord*>;  // arm, reference

std::vector<Pair> pairs_by_seed(const Comparison& all, const Arm& arm, const Arm& reference) {
  std::vector<Pair> pairs;
  for (const std::size_t index : arm.runs)
    if (const auto other = run_with_seed(all, reference, all.runs[index].seed))
      pairs.emplace_back(&all.runs[index], &all.runs[*other]);
  return pairs;
}

Estimate difference_over(const std::vector<Pair>& pairs, const Measure& measure) {
  std::vector<double> values;
  for (const auto& [run, other] : pairs) values.push_back(measure(*run) - measure(*other));
  return estimate(values);
}

// Within 1 % or one step of either run, whichever is more.
bool have_equal_flops(const RunRecord& a, const RunRecord& b) {
  const auto step = [](const RunRecord& run) {
    return run.flops / static_cast<double>(std::max(run.steps, 1LL));
  };
  const double tolerance = std::max({0.01 * b.flops, step(a), step(b)});
  return std::abs(a.flops - b.flops) <= tolerance;
}

PairedDifference difference(const std::vector<Pair>& pairs, const Arm& arm, const Arm& reference) {
  PairedDifference result{.arm = arm.label, .reference = reference.label};
  result.loss = difference_over(pairs, loss_of);
  result.bits_per_byte = difference_over(pairs, bits_of);
  result.flops_ratio = 0;
  for (const auto& [run, other] : pairs) {
    result.flops_ratio += run->flops / other->flops / static_cast<double>(pairs.size());
    result.equal_flops = result.equal_flops && have_equal_flops(*run, *other);
  }
  return result;
}

void pair_with_reference(Comparison& all) {
  for (std::size_t i = 1; i < all.arms.size(); ++i) {
    const auto pairs = pairs_by_seed(all, all.arms[i], all.arms[0]);
    if (pairs.empty())
      all.exclusions.push_back({all.arms[i].label, "no seed in common with " + all.arms[0].label +
                                                       ", so no paired difference"});
    else
      all.differences.push_back(difference(pairs, all.arms[i], all.arms[0]));
  }
}

}  // namespace

double steady_tokens_per_s(const RunRecord& run) {
  std::vector<double> rates;
  for (std::size_t i = run.train.size() / 2; i < run.train.size(); ++i)
    if (std::isfinite(run.train[i].tokens_per_s)) rates.push_back(run.train[i].tokens_per_s);
  return median(rates);
}

std::string verdict(const Estimate& difference) {
  if (!std::isfinite(difference.mean)) return "unknown";
  if (!difference.interval) return "one seed: no spread";
  if (difference.interval->high < 0) return "lower";
  if (difference.interval->low > 0) return "higher";
  return "tied";
}

Comparison compare(std::vector<RunRecord> runs) {
  Comparison result;
  result.runs = std::move(runs);
  group_into_arms(result);
  for (Arm& arm : result.arms) summarize(result, arm);
  pair_with_reference(result);
  return result;
}

}  // namespace convoy
