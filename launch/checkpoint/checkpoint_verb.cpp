#include "launch/checkpoint/checkpoint_verb.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>
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

// "f32 x 12, f64 x 24"
std::string dtypes_text(const Manifest& manifest) {
  std::map<std::string_view, int> counts;
  for (const auto& t : manifest.tensors) ++counts[name_of(t.dtype)];
  std::vector<std::string> parts;
  for (const auto& [dtype, count] : counts) parts.push_back(fmt::format("{} x {}", dtype, count));
  return fmt::format("{}", fmt::join(parts, ", "));
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
                                   {"note", checkpoint.note()},
                                   {"state", state}};
    for (const auto& t : manifest.tensors) {
      json["tensors"].push_back(
          {{"name", t.name}, {"dtype", std::string(name_of(t.dtype))}, {"shape", t.shape}});
    }
    return fmt::print("{}\n", json.dump(2));
  }
  if (!checkpoint.note().empty()) fmt::print("note: {}\n", checkpoint.note());
  fmt::print("{}\n  step {}, {} tokens, {}\n  {} parameters, {} tensors ({}), {:.1f} MiB\n",
             checkpoint.path().string(), manifest.step, state.value("tokens", std::int64_t{0}),
             state.value("architecture", ""), checkpoint.parameters(), manifest.tensors.size(),
             dtypes_text(manifest), static_cast<double>(bytes) / 1048576);
  if (!arguments.tensors) return;
  for (const auto& t : manifest.tensors) {
    fmt::print("  {:<56} {:<5} {}\n", t.name, name_of(t.dtype), shape_text(t.shape));
  }
}

// The folder to verify. Checkpoint::open would pass over a damaged one for an older one, and then
// damage would be reported as soundness.
std::filesystem::path folder_to_verify(const std::filesystem::path& given) {
  for (const auto& root : {given, given / "checkpoints"}) {
    const auto link = root / "latest";
    if (std::filesystem::is_symlink(link)) return root / std::filesystem::read_symlink(link);
  }
  const bool named_as_one =
      std::filesystem::is_directory(given) &&
      std::filesystem::canonical(given).filename().string().starts_with("step_");
  const bool is_checkpoint = std::filesystem::exists(given / Manifest::kFileName) || named_as_one;
  return is_checkpoint ? given : Checkpoint::open(given).path();
}

void verify(const CheckpointArguments& arguments) {
  const std::filesystem::path path = folder_to_verify(arguments.path);
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
