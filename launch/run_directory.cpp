#include "launch/run_directory.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/hdf5.h"
#include "launch/environment.h"
#include "launch/files.h"
#include "launch/flop_parts_json.h"
#include "launch/json_number.h"
#include "launch/layout.h"
#include "launch/run_labels.h"

namespace convoy {
namespace {

using Json = nlohmann::ordered_json;

const char* name_of(RunStatus status) {
  switch (status) {
    case RunStatus::running: return "running";
    case RunStatus::done: return "done";
    case RunStatus::interrupted: return "interrupted";
    case RunStatus::failed: return "failed";
    case RunStatus::diverged: return "diverged";
  }
  return "?";
}

// Calls function(row) for each complete JSON line; a torn last line of a killed run is left out.
template <class Function>
void for_each_row(const std::filesystem::path& metrics, Function function) {
  std::ifstream file(metrics);
  for (std::string line; std::getline(file, line);) {
    const auto row = Json::parse(line, nullptr, false);
    if (!row.is_discarded()) function(row);
  }
}

// A run that was killed may have left half a line; what follows must not be glued to it.
void end_torn_line(const std::filesystem::path& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::ate);
  if (!file || file.tellg() == std::fstream::pos_type(0)) return;
  file.seekg(-1, std::ios::end);
  if (file.get() == '\n') return;
  file.seekp(0, std::ios::end);
  file.put('\n');
}

Json layout_json(const RunConfig& config, int ranks) {
  const MeshShape mesh = mesh_shape(config, ranks);
  const PipelineShape pipeline = pipeline_shape(config, mesh);
  return {{"dp", mesh.dp},
          {"tp", mesh.tp},
          {"pp", mesh.pp},
          {"cp", mesh.cp},
          {"ep", mesh.ep},
          {"sequence_parallel", config.parallel.sequence_parallel},
          {"zero", config.parallel.zero},
          {"schedule", name_of(pipeline.kind)},
          {"virtual_stages", pipeline.virtual_stages},
          {"recompute", config.parallel.recompute}};
}

}  // namespace

std::string run_status(const std::filesystem::path& run_directory) {
  const std::filesystem::path path = run_directory / "run.json";
  if (!std::filesystem::exists(path)) return "";
  const auto json = Json::parse(read_text(path), nullptr, false);
  return json.is_discarded() ? "" : json.value("status", "");
}

std::int64_t last_attempt(const std::filesystem::path& run_directory) {
  std::int64_t attempt = std::filesystem::exists(run_directory / "run.json") ? 1 : 0;
  for_each_row(run_directory / "metrics.jsonl", [&](const Json& row) {
    attempt = std::max(attempt, row.value("attempt", std::int64_t{1}));
  });
  return attempt;
}

RunDirectory::RunDirectory(std::filesystem::path path, Role role, const RunConfig& config,
                           int ranks, RunHardware hardware, std::int64_t attempt)
    : path_(std::move(path)),
      role_(role),
      config_(config),
      ranks_(ranks),
      hardware_(std::move(hardware)),
      attempt_(attempt),
      started_(utc_now()) {
  if (role_ == Role::silent) return;
  if (attempt == 1 && last_attempt(path_) > 0) {
    throw Error(path_.string() +
                " already holds a run; continue it with --resume auto, or choose another --output");
  }
  std::filesystem::create_directories(path_);
  replace_text(path_ / "config.toml", to_toml(config_));
  end_torn_line(path_ / "metrics.jsonl");
  metrics_.open(path_ / "metrics.jsonl", std::ios::app);
  if (!metrics_) throw Error("cannot write to " + (path_ / "metrics.jsonl").string());
}

void RunDirectory::append_line(const std::string& line) {
  metrics_ << line << '\n' << std::flush;
  if (!metrics_) throw Error("cannot write to " + (path_ / "metrics.jsonl").string());
}

double RunDirectory::utilization(double tokens_per_s) const {
  if (hardware_.peak_flops_per_s == 0) return std::nan("");
  return training_flops_per_token(config_).total() * tokens_per_s /
         (hardware_.peak_flops_per_s * ranks_);
}

void RunDirectory::append(const TrainRow& row) {
  if (role_ == Role::silent) return;
  append_line(Json({{"kind", "train"},
                    {"attempt", attempt_},
                    {"step", row.step},
                    {"tokens", row.tokens},
                    {"flops", row.flops},
                    {"wall_s", row.wall_s},
                    {"train_loss", json_number(row.train_loss)},
                    {"lr", row.lr},
                    {"grad_norm", json_number(row.grad_norm)},
                    {"tokens_per_s", row.tokens_per_s},
                    {"mfu", json_number(utilization(row.tokens_per_s))},
                    {"exposed_comm", row.exposed_comm},
                    {"skipped", row.skipped}})
                  .dump());
}

void RunDirectory::append(const EvalRow& row) {
  if (role_ == Role::silent) return;
  Json json = {{"kind", "eval"},
               {"attempt", attempt_},
               {"step", row.step},
               {"tokens", row.tokens},
               {"flops", row.flops},
               {"wall_s", row.wall_s},
               {"val_loss", json_number(row.val_loss)},
               {"val_bits_per_byte", json_number(row.val_bits_per_byte)},
               {"val_loss_se", json_number(row.val_loss_se)},
               {"val_accuracy", json_number(row.val_accuracy)},
               {"targets", row.targets},
               {"bytes", row.bytes}};
  if (!std::isnan(row.last_token_accuracy)) json["last_token_accuracy"] = row.last_token_accuracy;
  append_line(json.dump());
}

void RunDirectory::write_summary(const RunSummary& summary) {
  if (role_ == Role::silent) return;
  const ParameterCounts counts = count_parameters(config_.model);
  Json json = {
      {"name", path_.filename().string()},
      {"status", name_of(summary.status)},
      {"arch", config_.model.label()},
      {"seed", config_.train.seed},
      {"ranks", ranks_},
      {"layout", layout_json(config_, ranks_)},
      {"attempt", attempt_},
      {"parameters", counts.total},
      {"parameters_active", counts.active},
      {"parameters_non_embedding", counts.non_embedding},
      {"flops_per_token", json_of(training_flops_per_token(config_))},
      {"steps", total_steps(config_)},
      {"tokens", summary.tokens},
      {"flops", summary.flops},
      {"device", hardware_.device},
      {"hardware", hardware_.description},
      {"host", host_name()},
      {"version", program_version()},
      {"git", source_revision()},
      {"started", started_},
      {"wall_s", summary.wall_s},
      {"val_loss", summary.val_targets > 0 ? json_number(summary.val_loss) : Json(nullptr)},
      {"val_bits_per_byte",
       summary.val_targets > 0 ? json_number(summary.val_bits_per_byte) : Json(nullptr)},
      {"message", summary.message}};
  replace_text(path_ / "run.json", json.dump(2) + "\n");
}

void RunDirectory::write_table() const {
  if (role_ == Role::silent) return;
  const std::vector<std::string> columns = {"attempt",      "step",        "tokens", "flops",
                                            "wall_s",       "train_loss",  "lr",     "grad_norm",
                                            "tokens_per_s", "exposed_comm"};
  std::vector<std::vector<double>> values(columns.size());
  for_each_row(path_ / "metrics.jsonl", [&](const Json& row) {
    if (row.value("kind", "") != "train") return;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const auto& cell = row.at(columns[i]);
      values[i].push_back(cell.is_null() ? std::nan("") : cell.get<double>());
    }
  });
  const std::filesystem::path temporary = path_ / "metrics.h5.partial";
  Hdf5File file(temporary.string(), Hdf5File::Mode::create);
  for (std::size_t i = 0; i < columns.size(); ++i) file.write(columns[i], values[i]);
  file.close();
  std::filesystem::rename(temporary, path_ / "metrics.h5");
}

}  // namespace convoy
