#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "launch/planner.h"
#include "launch/verbs.h"

namespace convoy {
namespace {

struct PlanOptions {
  std::string config;
  std::vector<std::string> overrides;
  int ranks = 1;
  std::string device = "cpu";
  bool json = false;
};

std::string to_json(const Plan& plan) {
  const auto& f = plan.flops_per_token;
  const auto& m = plan.memory;
  const nlohmann::ordered_json json = {{"parameters", plan.parameters.total},
                                       {"parameters_active", plan.parameters.active},
                                       {"parameters_non_embedding", plan.parameters.non_embedding},
                                       {"flops_per_token",
                                        {{"linear", f.linear},
                                         {"attention", f.attention},
                                         {"head", f.head},
                                         {"conv", f.conv},
                                         {"router", f.router},
                                         {"total", f.total()}}},
                                       {"memory_bytes",
                                        {{"weights", m.weights},
                                         {"gradients", m.gradients},
                                         {"optimizer", m.optimizer},
                                         {"activations", m.activations},
                                         {"workspace", m.workspace},
                                         {"runtime", m.runtime},
                                         {"total", m.total()}}},
                                       {"steps", plan.steps},
                                       {"total_flops", plan.total_flops},
                                       {"bubble", plan.bubble},
                                       {"step_seconds", plan.step_seconds}};
  return json.dump(2);
}

std::string mebibytes(double bytes) { return fmt::format("{:.1f} MiB", bytes / 1048576); }

void print_table(const RunConfig& config, const Plan& plan, const PlanOptions& options) {
  const auto& f = plan.flops_per_token;
  const auto& m = plan.memory;
  const auto line = [](const char* name, const std::string& value) {
    fmt::print("{:<28} {}\n", name, value);
  };
  line("architecture", config.model.label());
  line("parameters", fmt::format("{}", plan.parameters.total));
  line("  without embedding", fmt::format("{}", plan.parameters.non_embedding));
  line("training FLOPs per token", fmt::format("{:.0f}", f.total()));
  line("  linear", fmt::format("{:.0f}", f.linear));
  line("  attention", fmt::format("{:.0f}", f.attention));
  line("  head", fmt::format("{:.0f}", f.head));
  line("  conv", fmt::format("{:.0f} ({:.1f} %)", f.conv, 100 * f.conv / f.total()));
  line("memory of the largest rank", mebibytes(m.total()));
  line("  weights", mebibytes(m.weights));
  line("  gradients", mebibytes(m.gradients));
  line("  optimizer", mebibytes(m.optimizer));
  line("  activations", mebibytes(m.activations));
  if (m.workspace > 0) line("  workspace", mebibytes(m.workspace));
  if (m.runtime > 0) line("  driver and libraries", mebibytes(m.runtime));
  if (plan.bubble > 0) line("pipeline bubble", fmt::format("{:.1f} %", 100 * plan.bubble));
  line("seconds a step (estimate)",
       fmt::format("{:.3g} on {} x {}", plan.step_seconds, options.ranks, options.device));
  if (plan.steps == 0) return;
  line("steps", fmt::format("{}", plan.steps));
  line("training FLOPs", fmt::format("{:.4g}", plan.total_flops));
  line("hours (estimate)",
       fmt::format("{:.3g}", plan.step_seconds * static_cast<double>(plan.steps) / 3600));
}

}  // namespace

void add_plan_verb(CLI::App& app) {
  const auto options = std::make_shared<PlanOptions>();
  auto* verb = app.add_subcommand("plan", "Parameters, FLOPs, memory and time of a configuration");
  verb->add_option("config", options->config, "TOML file; [model] alone is enough")->required();
  verb->add_option("--set", options->overrides, "key=value, may be repeated");
  verb->add_option("--ranks", options->ranks, "all of them, as [parallel] divides them")
      ->check(CLI::PositiveNumber);
  verb->add_option("--device", options->device, "cpu, h100 or h200");
  verb->add_flag("--json", options->json, "print JSON");
  verb->footer("Example: convoy plan launch/configs/paper_300m.toml --device h100 --json");
  verb->callback([options] {
    const RunConfig config = read_config(options->config, options->overrides);
    const Plan plan = make_plan(config, options->ranks, device_spec(options->device));
    options->json ? fmt::print("{}\n", to_json(plan)) : print_table(config, plan, *options);
  });
}

}  // namespace convoy
