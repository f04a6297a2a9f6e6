#include <CLI/CLI.hpp>
#include <memory>

#include "launch/inspection.h"
#include "launch/verbs.h"

namespace convoy {
namespace {

struct InspectArguments {
  std::string source, output;
  std::vector<std::string> overrides;
  std::int64_t sample = 0, steps = 1;
};

}  // namespace

void add_inspect_verb(CLI::App& app) {
  const auto a = std::make_shared<InspectArguments>();
  auto* group = app.add_subcommand(
      "inspect", "What a model computes, as safetensors, to be compared with another program");
  group->require_subcommand(1);
  group->footer("Example: convoy inspect gradients runs/first --output first.safetensors");
  auto* gradients = group->add_subcommand(
      "gradients", "A micro-batch with its logits, losses and the gradient of every parameter");
  gradients->add_option("--sample", a->sample, "the first of its samples")
      ->check(CLI::NonNegativeNumber);
  gradients->footer(
      "Example: convoy inspect gradients runs/first --set train.device=cpu "
      "--output first.safetensors");
  gradients->callback(
      [a] { write_gradients(open_inspected(a->source, a->overrides), a->sample, a->output); });
  auto* batches = group->add_subcommand("batches", "The batches of the first training steps");
  batches->add_option("--steps", a->steps, "how many")->check(CLI::PositiveNumber);
  batches->footer("Example: convoy inspect batches runs/first --steps 20 --output b.safetensors");
  batches->callback(
      [a] { write_batches(open_inspected(a->source, a->overrides).config, a->steps, a->output); });
  for (auto* verb : {gradients, batches}) {
    verb->add_option("source", a->source,
                     "TOML file (weights as its seed starts them), checkpoint or run directory")
        ->required();
    verb->add_option("--set", a->overrides, "key=value, may be repeated");
    verb->add_option("--output", a->output, "file (.safetensors)")->required();
  }
}

}  // namespace convoy
