// From run directories to the rows of `curves` and `runs`.
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "experiments/export/tables.h"
#include "experiments/manifest/run_identity.h"
#include "experiments/run_record.h"
#include "launch/lr_schedule.h"
#include "launch/run_labels.h"

namespace convoy {
namespace {

// Adds cells column by column: the first row makes the columns, the others must name the same.
class RowWriter {
 public:
  explicit RowWriter(Table& table) : table_(table) {}
  void next() { at_ = 0; }
  void text(const char* name, const std::string& value) { put(name, value); }
  void integer(const char* name, std::int64_t value) { put(name, value); }
  void real(const char* name, double value) { put(name, value); }

 private:
  template <class T>
  void put(const char* name, const T& value) {
    if (at_ == table_.columns.size()) table_.columns.emplace_back(name, std::vector<T>());
    auto& [known, cells] = table_.columns[at_++];
    CHECK(known == name, "column ", name, " in the place of ", known);
    std::get<std::vector<T>>(cells).push_back(value);
  }

  Table& table_;
  std::size_t at_ = 0;
};

bool is_cooldown(const RunConfig& config, std::int64_t step) {
  return config.lr_schedule.kind == "wsd" && step > warmup_steps(config) &&
         learning_rate(config, step) < config.optimizer.lr;
}

void add_curve(RowWriter& row, const PlannedRun& run, const RunRecord& record) {
  const double flops_6nd = training_flops_per_token(run.config, "6n");
  auto eval = record.eval.begin();
  for (const StepRecord& step : record.train) {
    while (eval != record.eval.end() && eval->step < step.step) ++eval;
    const bool judged = eval != record.eval.end() && eval->step == step.step;
    row.next();
    row.text("run_id", run.id);
    row.integer("attempt", step.attempt);
    row.integer("step", step.step);
    row.integer("tokens", std::llround(step.tokens));
    row.real("flops", step.flops);
    row.real("flops_6nd", flops_6nd * step.tokens);
    row.real("wall_s", step.wall_s);
    row.real("train_loss", step.train_loss);
    row.real("val_loss", judged ? eval->val_loss : kUnknown);
    row.real("lr", step.lr);
    row.real("grad_norm", step.grad_norm);
    row.real("tokens_per_s", step.tokens_per_s);
    row.real("mfu", step.mfu);
    row.integer("is_cooldown", is_cooldown(run.config, step.step) ? 1 : 0);
    row.real("val_accuracy", judged ? eval->val_accuracy : kUnknown);
  }
}

double mean_mfu(const RunRecord& record) {
  double sum = 0;
  for (const StepRecord& step : record.train) sum += step.mfu;
  return record.train.empty() ? kUnknown : sum / static_cast<double>(record.train.size());
}

void add_sizes(RowWriter& row, const PlannedRun& run, double tokens) {
  const ParameterCounts counts = count_parameters(run.config.model);
  const FlopParts parts = training_flops_per_token(run.config);
  row.integer("N", counts.total);
  row.integer("N_active", counts.active);
  row.integer("N_non_embedding", counts.non_embedding);
  row.integer("D", std::llround(tokens));
  row.real("unique_tokens", run.unique_tokens > 0 ? std::min(run.unique_tokens, tokens) : kUnknown);
  row.real("C", run.flops / run.tokens * tokens);
  row.real("C_linear", parts.linear * tokens);
  row.real("C_attention", parts.attention * tokens);
  row.real("C_head", parts.head * tokens);
  row.real("C_conv", parts.conv * tokens);
  row.real("C_router", parts.router * tokens);
}

void add_run(RowWriter& row, const PlannedRun& run, const RunRecord& record, RunState state,
             const std::string& convention) {
  const RunConfig& config = run.config;
  const bool branched = !record.train.empty() && record.train.front().step > 1;
  const bool judged = !record.eval.empty();
  row.next();
  row.text("run_id", run.id);
  row.text("parent_run", branched ? run.parent : "");
  row.text("arch", run.arch);
  row.text("size", run.size);
  row.integer("seed", run.seed);
  row.text("status", name_of(state));
  add_sizes(row, run, record.tokens);
  row.text("flop_convention", convention);
  row.integer("seq_len", config.model.seq_len);
  row.integer("vocab", config.model.vocab);
  row.integer("batch_tokens", config.train.batch_tokens);
  row.integer("steps", record.steps);
  row.real("peak_lr", config.optimizer.lr);
  row.text("schedule", config.lr_schedule.kind);
  row.real("val_loss", judged ? record.eval.back().val_loss : kUnknown);
  row.real("val_loss_se", judged ? record.eval.back().val_loss_se : kUnknown);
  row.real("val_bits_per_byte", judged ? record.eval.back().val_bits_per_byte : kUnknown);
  row.real("wall_s", record.wall_s);
  row.integer("ranks", record.ranks);
  row.text("device", record.device);
  row.real("device_hours", record.ranks * record.wall_s / 3600);
  row.real("mean_mfu", mean_mfu(record));
  row.text("git", record.git);
  row.text("config_hash", config_hash(config));
  row.real("val_accuracy", judged ? record.eval.back().val_accuracy : kUnknown);
  row.real("last_token_accuracy", judged ? record.eval.back().last_token_accuracy : kUnknown);
}

template <class T>
const std::vector<T>& cells(const Table& table, const std::string& name) {
  const auto* found = std::get_if<std::vector<T>>(&table.column(name));
  CHECK(found != nullptr, "column ", name, " of ", table.name, " is of another type");
  return *found;
}

}  // namespace

std::size_t Table::rows() const {
  if (columns.empty()) return 0;
  return std::visit([](const auto& values) { return values.size(); }, columns.front().second);
}

const Column& Table::column(const std::string& wanted) const {
  for (const auto& [known, values] : columns) {
    if (known == wanted) return values;
  }
  throw Error(concat("the table ", name, " has no column ", wanted));
}

const std::vector<std::string>& Table::texts(const std::string& column_name) const {
  return cells<std::string>(*this, column_name);
}
const std::vector<std::int64_t>& Table::integers(const std::string& column_name) const {
  return cells<std::int64_t>(*this, column_name);
}
const std::vector<double>& Table::reals(const std::string& column_name) const {
  return cells<double>(*this, column_name);
}

SweepTables make_tables(const SweepPlan& plan, const RunStore& store) {
  SweepTables tables{{"curves", {}}, {"runs", {}}};
  RowWriter curves(tables.curves), runs(tables.runs);
  for (const PlannedRun& run : plan.runs) {
    if (!std::filesystem::exists(store.folder(run) / "run.json")) continue;
    const RunRecord record = read_run(store.folder(run));
    add_curve(curves, run, record);
    add_run(runs, run, record, store.state(run), plan.manifest.plan.flop_convention);
  }
  return tables;
}

}  // namespace convoy
