// What `convoy sweep plan` prints.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "experiments/manifest/sweep_plan.h"
#include "launch/flop_parts_json.h"
#include "launch/run_labels.h"

namespace convoy {
namespace {

// 12345678 -> "12.35M".
std::string compact(double value) {
  if (value >= 1e9) return fmt::format("{:.4g}B", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.4g}M", value / 1e6);
  return value >= 1e4 ? fmt::format("{:.4g}k", value / 1e3) : fmt::format("{:.0f}", value);
}

std::string ratio_to_target(const PlannedRun& run) {
  return run.target_flops > 0 ? fmt::format("{:.4f}", run.flops / run.target_flops) : "-";
}

// Warnings with the runs they hold for, each text once.
std::vector<std::pair<std::string, std::vector<std::string>>> grouped_warnings(
    const SweepPlan& plan) {
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;
  for (const auto& text : plan.warnings) groups.push_back({text, {}});
  for (const auto& run : plan.runs) {
    for (const auto& text : run.warnings) {
      const auto same = [&](const auto& group) { return group.first == text; };
      auto place = std::find_if(groups.begin(), groups.end(), same);
      if (place == groups.end()) place = groups.insert(groups.end(), {text, {}});
      place->second.push_back(run.name);
    }
  }
  return groups;
}

}  // namespace

std::string to_table(const SweepPlan& plan) {
  std::size_t width = 4;
  for (const auto& run : plan.runs) width = std::max(width, run.name.size());
  std::string text = fmt::format(
      "{:<{}} {:>8} {:>8} {:>6} {:>8} {:>8} {:>10} {:>8} {:>9} {:>5} {:>8}  {}\n", "run", width,
      "N", "D", "epochs", "steps", "batch", "C", "C/target", "LR", "ranks", "hours", "id");
  double hours = 0, flops = 0;
  for (const auto& run : plan.runs) {
    text += fmt::format(
        "{:<{}} {:>8} {:>8} {:>6} {:>8} {:>8} {:>10.4g} {:>8} {:>9.3g} {:>5} {:>8.3g}  {}\n",
        run.name, width, compact(run.n), compact(run.tokens),
        run.epochs > 0 ? fmt::format("{:.2f}", run.epochs) : "-", run.steps,
        run.config.train.batch_tokens, run.flops, ratio_to_target(run), run.config.optimizer.lr,
        run.ranks, run.hours, run.id);
    hours += run.hours;
    flops += run.flops;
  }
  text += fmt::format(
      "{} runs in {} chains, {:.4g} training FLOPs ({}), about {:.3g} hours one after "
      "another on {}\n",
      plan.runs.size(), plan.chains(), flops, plan.manifest.plan.flop_convention, hours,
      plan.manifest.launch.device);
  for (const auto& [warning, runs] : grouped_warnings(plan)) {
    text += "warning: " + warning;
    if (!runs.empty()) text += " (" + runs.front();
    if (runs.size() > 1) text += fmt::format(" and {} more", runs.size() - 1);
    text += runs.empty() ? "\n" : ")\n";
  }
  return text;
}

std::string to_json(const SweepPlan& plan) {
  nlohmann::ordered_json json = {{"name", plan.manifest.name},
                                 {"flop_convention", plan.manifest.plan.flop_convention},
                                 {"param_convention", plan.manifest.plan.param_convention},
                                 {"warnings", plan.warnings},
                                 {"runs", nlohmann::ordered_json::array()}};
  for (const auto& run : plan.runs) {
    json["runs"].push_back({{"id", run.id},
                            {"name", run.name},
                            {"arch", run.arch},
                            {"size", run.size},
                            {"seed", run.seed},
                            {"lr_multiplier", run.lr_multiplier},
                            {"parent", run.parent},
                            {"branch_step", run.branch_step},
                            {"chain", run.chain},
                            {"N", run.n},
                            {"D", run.tokens},
                            {"unique_tokens", run.unique_tokens},
                            {"epochs", run.epochs},
                            {"steps", run.steps},
                            {"batch_tokens", run.config.train.batch_tokens},
                            {"C", run.flops},
                            {"C_target", run.target_flops},
                            {"flops_per_token", json_of(training_flops_per_token(run.config))},
                            {"lr", run.config.optimizer.lr},
                            {"ranks", run.ranks},
                            {"hours", run.hours},
                            {"warnings", run.warnings}});
  }
  return json.dump(2) + "\n";
}

}  // namespace convoy
