#include "launch/checkpoint/checkpoint_verb.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "launch/checkpoint/checkpoint.h"
#include "launch/checkpoint/safetensors.h"

namespace convoy {
namespace {

struct CheckpointArguments {
  std::string path, output, dtype = "f32";
  bool json = false, tensors = false;
};

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

void info(const CheckpointArguments& arguments) {
  const Checkpoint checkpoint = Checkpoint::open(arguments.path);
  const Manifest& manifest = checkpoint.manifest();
  const auto state = nlohmann::ordered_json::parse(checkpoint.text("state.json"));
  std::int64_t bytes = 0;
  for (const auto& file : manifest.files) bytes += file.bytes;
  if (arguments.json) {
    nlohmann::ordered_json json = {{"path", checkpoint.path().string()},
                                   {"step", manifest.step},
                                   {"parameters", checkpoint.parameters()},
                                   {"bytes", bytes},
                                   {"state", state}};
    for (const auto& t : manifest.tensors) {
      json["tensors"].push_back(
          {{"name", t.name}, {"dtype", std::string(name_of(t.dtype))}, {"shape", t.shape}});
    }
    return fmt::print("{}\n", json.dump(2));
  }
  fmt::print("{}\n  step {}, {} tokens, {}\n  {} parameters, {} tensors, {:.1f} MiB\n",
             checkpoint.path().string(), manifest.step, state.value("tokens", std::int64_t{0}),
             state.value("architecture", ""), checkpoint.parameters(), manifest.tensors.size(),
             static_cast<double>(bytes) / 1048576);
  if (!arguments.tensors) return;
  for (const auto& t : manifest.tensors) {
    fmt::print("  {:<56} {:<5} {}\n", t.name, name_of(t.dtype), shape_text(t.shape));
  }
}

void verify(const CheckpointArguments& arguments) {
  // Without the check of Checkpoint::open, so that every problem is listed.
  const std::filesystem::path given = arguments.path;
  const bool is_checkpoint = std::filesystem::exists(given / Manifest::kFileName);
  const auto path = is_checkpoint ? given : Checkpoint::open(given).path();
  const auto problems = verify_checkpoint(path);
  if (arguments.json) fmt::print("{}\n", nlohmann::json(problems).dump(2));
  if (problems.empty()) {
    if (!arguments.json) fmt::print("{}: every byte is as it was written\n", path.string());
    return;
  }
  throw Error(fmt::format("{} is damaged:\n  - {}\nuse an older checkpoint", path.string(),
                          fmt::join(problems, "\n  - ")));
}

DType dtype_named(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    if (name_of(dtype) == name) return dtype;
  }
  throw Error("--dtype " + name + " is not known; use f32, bf16 or f64");
}

}  // namespace

void add_checkpoint_verb(CLI::App& app) {
  const auto arguments = std::make_shared<CheckpointArguments>();
  auto* group = app.add_subcommand("checkpoint", "Look into, verify or export a checkpoint");
  group->require_subcommand(1);
  auto* show = group->add_subcommand("info", "Step, size and tensors");
  show->add_flag("--tensors", arguments->tensors, "list every tensor");
  show->footer("Example: convoy checkpoint info runs/first --tensors");
  show->callback([arguments] { info(*arguments); });
  auto* check = group->add_subcommand("verify", "Read every byte against the checksums");
  check->footer("Example: convoy checkpoint verify runs/first/checkpoints/step_00001000");
  check->callback([arguments] { verify(*arguments); });
  auto* exporting = group->add_subcommand("export", "Parameters as a safetensors file");
  exporting->add_option("--output", arguments->output, "file (.safetensors)")->required();
  exporting->add_option("--dtype", arguments->dtype, "f32, bf16 or f64");
  exporting->footer("Example: convoy checkpoint export runs/first --output first.safetensors");
  exporting->callback([arguments] {
    export_safetensors(Checkpoint::open(arguments->path), arguments->output,
                       dtype_named(arguments->dtype));
  });
  for (auto* verb : {show, check, exporting}) {
    verb->add_option("checkpoint", arguments->path, "checkpoint or run directory")->required();
  }
  for (auto* verb : {show, check}) verb->add_flag("--json", arguments->json, "print JSON");
}

}  // namespace convoy
