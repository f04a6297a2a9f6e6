#include "launch/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "launch/environment.h"
#include "launch/run_data.h"
#include "launch/run_device.h"
#include "launch/run_labels.h"
#include "launch/stop_signal.h"

namespace convoy {
namespace {

// A task whose values lie elsewhere would be judged as something that nobody trained.
void require_same_vocabulary(const TrainingData& train, const ValidationData& val) {
  if (train.vocabulary() == val.vocabulary()) return;
  throw Error(concat("data.train has a vocabulary of ", train.vocabulary(), ", data.val (",
                     val.name(), ") one of ", val.vocabulary(),
                     "; prepare both with the same tokenizer, or give both tasks the same vocab"));
}

bool checkpoint_due(const CheckpointConfig& config, std::int64_t step) {
  return (config.every > 0 && step % config.every == 0) ||
         std::find(config.at.begin(), config.at.end(), step) != config.at.end();
}

NormRanks norm_ranks(const RunConfig& config, const Layout& layout) {
  const Communicator& sharers = layout.mesh().gradient();
  return {layout.world(), sharers.size(), sharers.rank(), config.numerics};
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const TrainOptions& options, Backend& backend,
                 Communicator& ranks)
    : config_(config),
      options_(options),
      backend_(backend),
      ranks_(instrument(ranks, "world", communication_, options.activity)),
      flops_per_token_(training_flops_per_token(config).total()),
      steps_(total_steps(config)),
      data_(training_data_of(config)),
      trace_(config.log, options.output, backend, *ranks_),
      layout_(config, trace_.ranks()),
      model_(config, layout_, backend),
      optimizer_(backend, model_.own_parts(), norm_ranks(config, layout_), config.optimizer),
      gradients_(config_, layout_, model_, data_),
      training_step_(config_, layout_, backend, model_, gradients_, optimizer_),
      progress_(config, role()) {
  data_.require_vocabulary(static_cast<int>(config.model.vocab));
  if (!config.data.val.empty()) {
    validation_ =
        open_validation(config.data.val, config.model.seq_len, parse_pack(config.data.pack));
    require_same_vocabulary(data_, *validation_);
    const Replicas replicas{*ranks_, layout_.mesh().shape().dp, layout_.mesh().position().dp};
    evaluator_.emplace(model_, replicas, *validation_, config.eval.batches);
  }
  if (options.resume) resume();
  directory_.emplace(options_.output, role(), config_, ranks.size(),
                     hardware_of_run(backend, dtype_of_run(config)), state_.attempt);
  writer_.emplace(
      backend, CheckpointWriter::Options{checkpoint_root(), config.checkpoint.keep,
                                         config.checkpoint.async, config.checkpoint.at,
                                         ranks.rank(), config.parallel.communication_deadline_s});
}

RunDirectory::Role Trainer::role() const {
  return ranks_->rank() == 0 ? RunDirectory::Role::writer : RunDirectory::Role::silent;
}

std::filesystem::path Trainer::checkpoint_root() const {
  return config_.checkpoint.dir.empty() ? options_.output / "checkpoints"
                                        : std::filesystem::path(config_.checkpoint.dir);
}

// `resume` names a checkpoint, or is empty: the newest of this run, else the one to branch from, or
// a fresh start without either.
void Trainer::resume() {
  const auto found = options_.resume->empty() ? find_latest(checkpoint_root()) : options_.resume;
  const std::int64_t attempt = last_attempt(options_.output) + 1;
  ranks_->barrier();  // every rank has looked before rank 0 writes
  if (found) {
    start_from(*found);
  } else if (!options_.branch_from.empty()) {
    require_same_past(options_.branch_from, config_);
    start_from(options_.branch_from);
  }
  state_.attempt = attempt;
}

void Trainer::start_from(const std::filesystem::path& checkpoint) {
  state_ = load_run_checkpoint(checkpoint, config_, optimizer_);
  model_.publish();
  progress_.note(fmt::format("resumed from {} at step {}", checkpoint.string(), state_.step));
}

void Trainer::announce() {
  const auto counts = count_parameters(config_.model);
  progress_.note(
      fmt::format("{}: {} parameters, {} steps of {} tokens on {} rank{}, {:.3g} training FLOPs",
                  config_.model.label(), counts.total, steps_, config_.train.batch_tokens,
                  ranks_->size(), ranks_->size() == 1 ? "" : "s",
                  flops_per_token_ * static_cast<double>(steps_ * config_.train.batch_tokens)));
  const std::int64_t windows = steps_ * config_.train.batch_tokens / config_.model.seq_len;
  const double epochs =
      static_cast<double>(windows) / static_cast<double>(data_.windows_per_epoch());
  progress_.note(fmt::format("{} windows of {} tokens an epoch, {:.2f} epochs",
                             data_.windows_per_epoch(), config_.model.seq_len, epochs));
  progress_.note(fmt::format("{}{} on {}", config_.train.precision,
                             config_.deterministic ? "" : ", not deterministic,",
                             describe_device(backend_)));
  if (!config_.matmul_table.empty()) {
    progress_.note(fmt::format("matmuls as {} says", config_.matmul_table));
  }
}

RunStatus Trainer::run() {
  announce();
  since_start_.restart();
  directory_->write_summary(summary_now(RunStatus::running, ""));
  try {
    const RunStatus status = loop();
    finish(status);
    return status;
  } catch (const std::exception& error) {
    if (ranks_->rank() == 0) {
      directory_->write_summary(
          summary_now(diverged_ ? RunStatus::diverged : RunStatus::failed, error.what()));
    }
    throw;
  }
}

RunStatus Trainer::loop() {
  while (state_.step < steps_) {
    const std::int64_t step = state_.step + 1;
    const Doing doing(concat("step ", step));
    trace_.begin(step);
    const Stopwatch watch;
    const double waited_before = communication_.total().wait_s;
    const StepOutcome outcome = training_step_.run(step, stop_requested(), after(step));
    if (outcome.stop_requested) return RunStatus::interrupted;
    trace_.end(step);
    state_.step = step;
    record(outcome, {watch.seconds(), communication_.total().wait_s - waited_before});
    announce_recording();
    stop_if_diverged(outcome.update);
    if (evaluation_due(step)) evaluate();
    if (step < steps_ && checkpoint_due(config_.checkpoint, step)) save_checkpoint();
  }
  if (evaluator_) evaluate();
  return RunStatus::done;
}

bool Trainer::evaluation_due(std::int64_t step) const {
  return evaluator_ && step < steps_ && config_.eval.every > 0 && step % config_.eval.every == 0;
}

NextStep Trainer::after(std::int64_t step) const {
  const bool interrupted =
      step == steps_ || evaluation_due(step) || checkpoint_due(config_.checkpoint, step);
  return interrupted ? NextStep::later : NextStep::at_once;
}

void Trainer::announce_recording() {
  const std::string& status = recording().status();
  if (status == recording_) return;
  recording_ = status;
  progress_.note(concat("a step is ", recording().replayed() ? "" : "not recorded: ", status));
}

void Trainer::record(const StepOutcome& outcome, const StepTime& time) {
  constexpr double kMemory = 0.9;
  const double seconds = time.seconds;
  seconds_per_step_ =
      seconds_per_step_ == 0 ? seconds : kMemory * seconds_per_step_ + (1 - kMemory) * seconds;
  const TrainRow row{state_.step,
                     tokens(),
                     flops(),
                     wall_seconds(),
                     outcome.loss,
                     outcome.learning_rate,
                     outcome.update.gradient_norm,
                     static_cast<double>(config_.train.batch_tokens) / seconds,
                     time.waited / seconds,
                     outcome.update.skipped};
  directory_->append(row);
  progress_.step(row, seconds_per_step_ * static_cast<double>(steps_ - state_.step));
}

void Trainer::stop_if_diverged(const UpdateResult& update) {
  if (update.skipped_in_row < config_.optimizer.max_skipped) return;
  diverged_ = true;
  throw Error(concat("the run diverged: ", update.skipped_in_row, " bad steps in a row up to step ",
                     state_.step, " (gradient norm ", update.gradient_norm,
                     "); lower optimizer.lr or raise the warm-up, and resume from the last "
                     "checkpoint"));
}

void Trainer::evaluate() {
  const Doing doing("evaluation");
  const EvalResult result = evaluator_->run();
  state_.val_loss = result.loss;
  state_.val_bits_per_byte = result.bits_per_byte;
  state_.val_targets = result.targets;
  const EvalRow row{state_.step,
                    tokens(),
                    flops(),
                    wall_seconds(),
                    result.loss,
                    result.bits_per_byte,
                    result.targets,
                    result.bytes,
                    result.standard_error,
                    result.accuracy,
                    result.last_token_accuracy};
  directory_->append(row);
  progress_.evaluation(row);
}

void Trainer::save_checkpoint() {
  TrainingState state = state_;
  state.wall_s = wall_seconds();
  const bool counts = layout_.mesh().gradient().rank() == 0;
  save_run_checkpoint(*writer_, *ranks_, config_, state, optimizer_, counts, data_.tokenizer());
}

RunSummary Trainer::summary_now(RunStatus status, const std::string& message) const {
  RunSummary summary;
  summary.status = status;
  summary.tokens = tokens();
  summary.flops = flops();
  summary.wall_s = wall_seconds();
  summary.val_loss = state_.val_loss;
  summary.val_bits_per_byte = state_.val_bits_per_byte;
  summary.val_targets = state_.val_targets;
  summary.message = message;
  return summary;
}

void Trainer::finish(RunStatus status) {
  save_checkpoint();
  writer_->finish();
  RunSummary summary = summary_now(status, "");
  if (status == RunStatus::interrupted) {
    summary.message =
        concat("stopped by a signal after step ", state_.step, "; continue with --resume auto");
    progress_.note(summary.message);
  }
  directory_->write_table();
  directory_->write_summary(summary);
  ranks_->barrier();  // all durable work is done before any rank leaves
}

}  // namespace convoy
