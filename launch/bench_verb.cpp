#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/cpu/matmul_library.h"
#include "launch/bench.h"
#include "launch/bench_overlap.h"
#include "launch/environment.h"
#include "launch/files.h"
#include "launch/json_number.h"
#include "launch/run_device.h"
#include "launch/verbs.h"

namespace convoy {
namespace {

using Json = nlohmann::ordered_json;

struct BenchOptions {
  std::int64_t sequences = 8, length = 256, channels = 352;
  int repeats = 15;
  std::string device = "auto", dtype;
  std::string config, write;
  std::vector<std::string> overrides;
  std::string pictures;
  bool json = false;
};

Json machine(DeviceKind device) {
  const auto backend = make_backend(device, NumericsMode::fast);
  Json json = {{"device", std::string(backend->name())}, {"hardware", describe_device(*backend)}};
  if (device == DeviceKind::cpu) {
    json["matmul_library"] = std::string(cpu::matmul_library_name());
    json["threads"] = 1;
  }
  json["git"] = source_revision();
  json["when"] = utc_now();
  return json;
}

Json ceilings_json(const Ceilings& c) {
  return {{"copy_bytes_per_s", c.copy_bytes_per_s}, {"matmul_flops_per_s", c.matmul_flops_per_s}};
}

DeviceKind device_named(const std::string& name) {
  RunConfig config;
  config.train.device = name;
  return device_of_run(config);
}

DType dtype_named(const std::string& name, DeviceKind device) {
  RunConfig config;
  config.train.precision = !name.empty() ? name : (device == DeviceKind::cuda ? "bf16" : "f32");
  return dtype_of_run(config);
}

void run_operations(const BenchOptions& o) {
  const DeviceKind device = device_named(o.device);
  const DType dtype = dtype_named(o.dtype, device);
  const Ceilings ceilings = measure_ceilings(device, dtype);
  const auto results =
      bench_operations({device, dtype, o.sequences, o.length, o.channels, o.repeats});
  Json json = machine(device);
  json["dtype"] = std::string(name_of(dtype));
  json["ceilings"] = ceilings_json(ceilings);
  if (!o.json) {
    fmt::print("{}\na large copy moves {:.0f} GB/s, a large matmul does {:.1f} TFLOP/s\n",
               json["hardware"].get<std::string>(), ceilings.copy_bytes_per_s / 1e9,
               ceilings.matmul_flops_per_s / 1e12);
    fmt::print("{:<44} {:>14} {:>12} {:>9} {:>9} {:>12}\n", "operation", "shape", "microseconds",
               "GB/s", "GFLOP/s", "of copy speed");
  }
  for (const auto& r : results) {
    const double gigabytes = r.bytes / r.seconds / 1e9, gigaflops = r.flops / r.seconds / 1e9;
    json["operations"].push_back({{"name", r.name},
                                  {"shape", r.shape},
                                  {"seconds", r.seconds},
                                  {"bytes_per_s", r.bytes / r.seconds},
                                  {"flops_per_s", r.flops / r.seconds},
                                  {"copy_seconds", r.copy_seconds},
                                  {"copy_fraction", r.copy_fraction()}});
    if (!o.json) {
      fmt::print("{:<44} {:>14} {:>12.1f} {:>9.2f} {:>9.1f} {:>11.0f}%\n", r.name, r.shape,
                 r.seconds * 1e6, gigabytes, gigaflops, 100 * r.copy_fraction());
    }
  }
  if (o.json) fmt::print("{}\n", json.dump(2));
}

void run_step(const BenchOptions& o) {
  RunConfig config = read_config(o.config, o.overrides);
  if (o.device != "auto") config.train.device = o.device;
  const StepMeasurement result = bench_step(config, o.repeats);
  Json json = machine(device_of_run(config));
  json["precision"] = config.train.precision;
  json["deterministic"] = config.deterministic;
  json["architecture"] = config.model.label();
  json["micro_batch"] = config.train.micro_batch;
  json["seq_len"] = config.model.seq_len;
  json["recorded_step"] = result.replayed;
  if (!result.recording.empty()) json["recording"] = result.recording;
  if (result.replayed) json["replay_milliseconds"] = result.replay_seconds * 1e3;
  json["milliseconds"] = result.seconds * 1e3;
  json["tokens_per_s"] = result.tokens_per_s;
  json["model_gflops_per_s"] = result.flops_per_s / 1e9;
  json["loss"] = result.loss;
  json["arena_bytes"] = result.arena_bytes;
  json["memory_bytes"] = {{"predicted", result.predicted_bytes},
                          {"measured", json_number(result.measured_bytes)}};
  if (o.json) return fmt::print("{}\n", json.dump(2));
  fmt::print("{}: {:.2f} ms a step of {} x {} tokens, {:.0f} tokens/s, {:.1f} model GFLOP/s\n",
             config.model.label(), result.seconds * 1e3, config.train.micro_batch,
             config.model.seq_len, result.tokens_per_s, result.flops_per_s / 1e9);
  if (!result.recording.empty()) {
    fmt::print("{}: {}\n", result.replayed ? "recorded" : "not recorded", result.recording);
  }
  fmt::print("memory: {:.0f} MiB predicted", result.predicted_bytes / 1048576);
  if (!std::isnan(result.measured_bytes)) {
    fmt::print(", {:.0f} MiB measured", result.measured_bytes / 1048576);
  }
  fmt::print("\n");
}

void run_matmuls(const BenchOptions& o) {
  RunConfig config = read_config(o.config, o.overrides);
  if (o.device != "auto") config.train.device = o.device;
  const MatmulChoices choices = bench_matmuls(config);
  if (!o.write.empty()) choices.write(o.write);
  Json json = machine(device_of_run(config));
  for (const auto& [key, choice] : choices.all()) {
    const std::string shape = key.substr(key.rfind('\t') + 1);
    json["matmuls"].push_back({{"shape", shape},
                               {"unasked_seconds", choice.unasked_seconds},
                               {"seconds", choice.seconds}});
    if (!o.json) {
      fmt::print("{:<90} {:>9.1f} us unasked {:>9.1f} us chosen\n", shape,
                 choice.unasked_seconds * 1e6, choice.seconds * 1e6);
    }
  }
  if (o.json) fmt::print("{}\n", json.dump(2));
}

Json measured(const OverlapMeasurement& rank) {
  return {{"milliseconds_in_flight", 1e3 * rank.transfer},
          {"milliseconds_blocked", 1e3 * rank.blocked},
          {"milliseconds_of_pass", 1e3 * rank.pass},
          {"hidden", rank.hidden()}};
}

void run_overlap(const BenchOptions& o) {
  const OverlapOptions options{.repeats = o.repeats};
  Json json = machine(DeviceKind::cpu);
  json["ranks"] = 2;
  json["in_flight_of_computation"] = options.share;
  if (!o.json) fmt::print("{:<20} {:>12} {:>12} {:>12}\n", "", "in flight", "hidden on", "off");
  for (const CoSchedule what : kCoSchedules) {
    const auto on = measure_overlap_on_threads(what, Overlap::yes, options);
    const auto off = measure_overlap_on_threads(what, Overlap::no, options);
    Json& entry = json["co_schedules"][std::string(name_of(what))];
    for (const auto& rank : on) entry["on"].push_back(measured(rank));
    for (const auto& rank : off) entry["off"].push_back(measured(rank));
    if (!o.pictures.empty()) {
      replace_text(std::filesystem::path(o.pictures) / fmt::format("overlap_{}.svg", name_of(what)),
                   overlap_picture(what, on, off));
    }
    if (o.json) continue;
    fmt::print("{:<20} {:>9.1f} ms {:>10.0f} % {:>10.0f} %\n", name_of(what), 1e3 * on[0].transfer,
               100 * std::min(on[0].hidden(), on[1].hidden()),
               100 * std::max(off[0].hidden(), off[1].hidden()));
  }
  if (o.json) fmt::print("{}\n", json.dump(2));
}

}  // namespace

void add_bench_verb(CLI::App& app) {
  const auto o = std::make_shared<BenchOptions>();
  auto* bench = app.add_subcommand("bench", "Measure operations or whole training steps");
  bench->require_subcommand(1);
  bench->footer("Example: convoy bench ops --json");
  auto* operations = bench->add_subcommand("ops", "Operations beside a copy of the same bytes");
  operations->add_option("--sequences", o->sequences, "B")->check(CLI::PositiveNumber);
  operations->add_option("--length", o->length, "T")->check(CLI::PositiveNumber);
  operations->add_option("--channels", o->channels, "D")->check(CLI::PositiveNumber);
  operations->callback([o] { run_operations(*o); });
  auto* step = bench->add_subcommand("step", "Training steps of one micro-batch, one thread");
  step->add_option("config", o->config, "TOML file")->required();
  step->add_option("--set", o->overrides, "key=value, may be repeated");
  step->callback([o] { run_step(*o); });
  auto* matmuls = bench->add_subcommand(
      "matmul", "The fastest of the library's algorithms for each matmul of a step, on a GPU");
  matmuls->add_option("config", o->config, "TOML file")->required();
  matmuls->add_option("--set", o->overrides, "key=value, may be repeated");
  matmuls->add_option("--write", o->write, "the table for numerics.matmul_table");
  matmuls->callback([o] { run_matmuls(*o); });
  matmuls->add_option("--device", o->device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
  matmuls->add_flag("--json", o->json, "print JSON");
  operations->add_option("--dtype", o->dtype, "f64, f32 or bf16; f32 on a CPU, bf16 on a GPU")
      ->check(CLI::IsMember({"f64", "f32", "bf16"}));
  auto* overlap = bench->add_subcommand(
      "overlap", "How much of communication is hidden, on two ranks with a slow link");
  overlap->add_option("--pictures", o->pictures, "a folder for a picture of each");
  overlap->add_option("--repeats", o->repeats, "passes; the least blocked counts")
      ->check(CLI::PositiveNumber);
  overlap->add_flag("--json", o->json, "print JSON");
  overlap->callback([o] { run_overlap(*o); });
  for (auto* verb : {operations, step}) {
    verb->add_option("--repeats", o->repeats, "measurements; the median counts")
        ->check(CLI::PositiveNumber);
    verb->add_option("--device", o->device, "auto, cpu or cuda")
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
    verb->add_flag("--json", o->json, "print JSON");
  }
}

}  // namespace convoy
