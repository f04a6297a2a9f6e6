#include "experiments/sweep_report/sweep_data.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <span>

#include "core/error.h"
#include "experiments/fit/csv_columns.h"
#include "experiments/statistics.h"
#include "launch/files.h"

namespace convoy {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostPoints = 300;  // of a training curve; a screen shows no more

// What `runs` holds beyond the columns of a RunRow.
constexpr const char* kWriter = "convoy sweep export";

void read_details(ReportedRun& run, const CsvColumns& table, std::size_t row) {
  run.schedule = table.text(row, "schedule");
  run.git = table.text(row, "git");
  run.steps = table.number(row, "steps");
  run.batch_tokens = table.number(row, "batch_tokens");
  run.peak_lr = table.number(row, "peak_lr");
  run.bits_per_byte = table.number(row, "val_bits_per_byte");
  run.loss_se = table.number(row, "val_loss_se");
  run.mfu = table.number(row, "mean_mfu");
  run.unique_tokens = table.number(row, "unique_tokens");
}

// N by the study's own convention, where the table has that column.
ColumnChoice columns_for(const std::optional<Study>& study, const fs::path& table) {
  if (!study || table.extension() != ".csv") return {};
  static const std::map<std::string, std::string> kColumns = {
      {"non_embedding", "N_non_embedding"}, {"active", "N_active"}, {"total", "N"}};
  const auto column = kColumns.find(study->param_convention);
  const CsvColumns headings(read_text(table), table.string(), kWriter);
  if (column == kColumns.end() || !headings.has(column->second)) return {};
  return {{"N", column->second}};
}

void read_runs_table(SweepData& data, const fs::path& path) {
  data.table = read_runs(path, columns_for(data.study, path));
  for (const RunRow& row : data.table.rows) data.runs.push_back({.row = row, .id = row.run_id});
  if (path.extension() != ".csv") return;
  const CsvColumns details(read_text(path), path.string(), kWriter);
  for (std::size_t i = 0; i < data.runs.size(); ++i) read_details(data.runs[i], details, i);
}

ReportedRun never_started(const StudyRun& planned) {
  ReportedRun run{.id = planned.id, .started = false};
  run.row.status = planned.state;
  run.row.arch = planned.arch;
  run.row.size = planned.size;
  run.row.seed = planned.seed;
  run.row.N = planned.n;
  run.row.D = planned.tokens;
  run.row.C = planned.flops;
  run.peak_lr = planned.lr;
  return run;
}

void add_plan(SweepData& data) {
  for (const StudyRun& planned : data.study->runs) {
    bool found = false;
    const auto complete = [&](ReportedRun& run) {
      run.row.run_id = planned.name;
      run.command = planned.command;
      run.message = planned.message;
      run.target_flops = planned.target_flops;
      run.epochs = planned.epochs;
      found = true;
    };
    for (ReportedRun& run : data.runs)
      if (run.id == planned.id) complete(run);
    if (found) continue;
    data.runs.push_back(never_started(planned));
    complete(data.runs.back());
  }
  for (std::size_t i = 0; i < data.table.rows.size(); ++i)
    data.table.rows[i].run_id = data.runs[i].row.run_id;
}

void thin_out(std::vector<CurvePoint>& curve) {
  const std::size_t stride = 1 + curve.size() / kMostPoints;
  std::vector<CurvePoint> kept;
  for (std::size_t i = 0; i < curve.size(); i += stride) kept.push_back(curve[i]);
  if (!curve.empty() && (curve.size() - 1) % stride != 0) kept.push_back(curve.back());
  curve = std::move(kept);
}

struct Curves {
  std::vector<CurvePoint> training, validation;
  std::vector<double> tokens_per_s;
};

// Training curves are thinned out, not averaged: a mean would hide the spikes.
void read_curves(SweepData& data, const fs::path& path) {
  const CsvColumns table(read_text(path), path.string(), kWriter);
  table.require({"run_id", "tokens", "flops", "wall_s", "train_loss", "val_loss", "tokens_per_s"});
  std::map<std::string, Curves> curves;
  for (std::size_t row = 0; row < table.rows(); ++row) {
    Curves& run = curves[table.text(row, "run_id")];
    CurvePoint point{.tokens = table.number(row, "tokens"),
                     .flops = table.number(row, "flops"),
                     .wall_s = table.number(row, "wall_s"),
                     .loss = table.number(row, "train_loss")};
    if (std::isfinite(point.loss)) run.training.push_back(point);
    point.loss = table.number(row, "val_loss");
    if (std::isfinite(point.loss)) run.validation.push_back(point);
    if (const double speed = table.number(row, "tokens_per_s"); std::isfinite(speed))
      run.tokens_per_s.push_back(speed);
  }
  for (ReportedRun& run : data.runs) {
    const auto at = curves.find(run.id);
    if (at == curves.end() || !run.started) continue;
    const auto& speeds = at->second.tokens_per_s;
    run.tokens_per_s = median(std::span(speeds).subspan(speeds.size() / 2));
    run.training = at->second.training;
    run.validation = at->second.validation;
    thin_out(run.training);
  }
}

}  // namespace

SweepData read_sweep(const fs::path& source) {
  if (!fs::exists(source)) throw Error(concat(source.string(), " does not exist"));
  SweepData data{.name = fs::weakly_canonical(source).filename().string()};
  const bool folder = fs::is_directory(source);
  const fs::path runs = folder ? source / "runs.csv" : source;
  if (!fs::exists(runs))
    throw Error(concat(source.string(),
                       " holds no runs.csv, so it is no sweep's output folder: give the folder "
                       "that the manifest names as `output`, after `convoy sweep run` or "
                       "`convoy sweep export`"));
  if (folder && fs::exists(source / "study.json")) {
    data.study = read_study(source / "study.json");
    data.name = data.study->name;
  } else {
    data.missing.emplace_back(
        "study.json is not beside the tables: what was planned, held equal and commanded is not "
        "known. `convoy sweep export` writes it.");
  }
  read_runs_table(data, runs);
  if (data.study) add_plan(data);
  if (folder && fs::exists(source / "curves.csv"))
    read_curves(data, source / "curves.csv");
  else
    data.missing.emplace_back(
        "curves.csv is not beside the table of runs: there are no loss curves and no speeds.");
  if (folder && fs::exists(source / "speeds.csv")) data.speeds = read_speeds(source / "speeds.csv");
  return data;
}

}  // namespace convoy
