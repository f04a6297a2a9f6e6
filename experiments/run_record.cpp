#include "experiments/run_record.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "experiments/json_fields.h"

namespace convoy {
namespace {

using nlohmann::json;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(concat("cannot read ", path, ": check that it exists and is readable"));
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

template <class Row>
Row read_common(const Fields& fields) {
  Row row;
  row.attempt = fields.value_or("attempt", 1);
  row.step = fields.required<long long>("step");
  row.tokens = fields.number("tokens");
  row.flops = fields.number("flops");
  row.wall_s = fields.number("wall_s");
  return row;
}

StepRecord read_step(const Fields& fields) {
  auto row = read_common<StepRecord>(fields);
  row.train_loss = fields.number("train_loss");
  row.lr = fields.number("lr");
  row.grad_norm = fields.number("grad_norm");
  row.tokens_per_s = fields.number("tokens_per_s");
  row.mfu = fields.number("mfu");
  row.exposed_comm = fields.number("exposed_comm");
  row.skipped = fields.value_or("skipped", false);
  return row;
}

EvalRecord read_eval(const Fields& fields) {
  auto row = read_common<EvalRecord>(fields);
  row.val_loss = fields.number("val_loss");
  row.val_bits_per_byte = fields.number("val_bits_per_byte");
  row.val_loss_se = fields.number("val_loss_se");
  row.val_accuracy = fields.number("val_accuracy");
  row.last_token_accuracy = fields.number("last_token_accuracy");
  return row;
}

// Adds one line of metrics.jsonl and returns its attempt. Rows of other kinds are left alone: a
// newer program may write some.
int add_row(RunRecord& run, const json& object, const std::string& place) {
  const Fields fields(object, place);
  const auto kind = fields.required<std::string>("kind");
  if (kind == "train") run.train.push_back(read_step(fields));
  if (kind == "eval") run.eval.push_back(read_eval(fields));
  return fields.value_or("attempt", 1);
}

// A killed run may leave its last line half written, and a resumed one may go on behind it. So a
// bad line that ends an attempt is noted; a bad line inside an attempt is an error.
void read_metrics(RunRecord& run, const std::filesystem::path& path) {
  std::istringstream text(read_file(path));
  int attempt = 0;
  int torn = 0;  // the number of a bad line that no row has followed yet
  std::string line;
  for (int number = 1; std::getline(text, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (object.is_discarded()) {
      if (torn > 0) throw Error(concat("line ", torn, " of ", path, " is not JSON"));
      run.notes.push_back(concat("line ", number, " of metrics.jsonl is torn and was left out"));
      torn = number;
      continue;
    }
    const int row_attempt = add_row(run, object, concat("line ", number, " of ", path));
    if (torn > 0 && row_attempt <= attempt)
      throw Error(concat("line ", torn, " of ", path, " is not JSON"));
    torn = 0;
    attempt = row_attempt;
  }
}

// The first training step of each attempt; a validation after step s says that s + 1 comes next.
std::map<int, long long> first_steps(const RunRecord& run) {
  std::map<int, long long> first;
  const auto note = [&](int attempt, long long step) {
    const auto [at, inserted] = first.emplace(attempt, step);
    if (!inserted) at->second = std::min(at->second, step);
  };
  for (const StepRecord& row : run.train) note(row.attempt, row.step);
  for (const EvalRecord& row : run.eval) note(row.attempt, row.step + 1);
  return first;
}

// An attempt that started at step s replaces every row from s on of the attempts before it. Where
// two attempts validated at one step, the newer row stays.
template <class Row>
void drop_superseded(std::vector<Row>& rows, const std::map<int, long long>& first) {
  const auto superseded = [&](const Row& row) {
    return std::any_of(first.upper_bound(row.attempt), first.end(),
                       [&](const auto& newer) { return row.step >= newer.second; });
  };
  std::erase_if(rows, superseded);
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
    return a.step != b.step ? a.step < b.step : a.attempt > b.attempt;
  });
  const auto same_step = [](const Row& a, const Row& b) { return a.step == b.step; };
  rows.erase(std::unique(rows.begin(), rows.end(), same_step), rows.end());
}

// How far the run came: by its last training row, by run.json where no row is left.
void read_progress(RunRecord& run, const Fields& fields) {
  if (run.train.empty()) {
    run.tokens = fields.number("tokens");
    run.flops = fields.number("flops");
    run.wall_s = fields.number("wall_s");
  } else {
    const StepRecord& last = run.train.back();
    run.steps = last.step;
    run.tokens = last.tokens;
    run.flops = last.flops;
    run.wall_s = last.wall_s;
  }
  run.val_loss = fields.number("val_loss");
  run.val_bits_per_byte = fields.number("val_bits_per_byte");
  if (!std::isnan(run.val_loss) || run.eval.empty()) return;
  run.val_loss = run.eval.back().val_loss;
  run.val_bits_per_byte = run.eval.back().val_bits_per_byte;
}

void read_identity(RunRecord& run, const Fields& fields) {
  run.name = fields.required<std::string>("name");
  run.status = fields.required<std::string>("status");
  run.arch = fields.value_or<std::string>("arch", "unnamed");
  run.device = fields.value_or<std::string>("device", "");
  run.git = fields.value_or<std::string>("git", "");
  run.message = fields.value_or<std::string>("message", "");
  run.seed = fields.value_or<long long>("seed", 0);
  run.ranks = fields.value_or("ranks", 1);
  run.parameters = fields.value_or<long long>("parameters", 0);
}

json parse_run_json(const std::filesystem::path& directory) {
  const auto path = directory / "run.json";
  if (!std::filesystem::exists(path))
    throw Error(concat(directory,
                       " holds no run.json, so it is no run directory: give the "
                       "directories that `convoy train --output` wrote"));
  json object = json::parse(read_file(path), nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) throw Error(concat(path, " is not JSON"));
  return object;
}

}  // namespace

RunRecord read_run(const std::filesystem::path& directory) {
  const json object = parse_run_json(directory);
  const Fields fields(object, concat(directory / "run.json"));
  RunRecord run;
  run.directory = directory;
  read_identity(run, fields);
  if (const auto path = directory / "config.toml"; std::filesystem::exists(path))
    run.config = read_file(path);
  if (const auto path = directory / "metrics.jsonl"; std::filesystem::exists(path))
    read_metrics(run, path);
  const auto first = first_steps(run);
  drop_superseded(run.train, first);
  drop_superseded(run.eval, first);
  read_progress(run, fields);
  return run;
}

}  // namespace convoy
