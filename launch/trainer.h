// Trainer: the loop over steps. It owns nothing clever: a GradientStep makes gradients, the
// Optimizer applies them, the Evaluator judges, the RunDirectory and checkpoints remember.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "launch/checkpoint/writer.h"
#include "launch/evaluator.h"
#include "launch/gradient_step.h"
#include "launch/optimizer.h"
#include "launch/progress.h"
#include "launch/run_checkpoint.h"
#include "launch/run_directory.h"
#include "launch/step_trace.h"
#include "launch/training_step.h"
#include "parallel/instrumented_communicator.h"

namespace convoy {

struct TrainOptions {
  std::filesystem::path output;                 // the run directory
  std::optional<std::filesystem::path> resume;  // a checkpoint; empty: the newest of this run
  std::filesystem::path branch_from;            // where that has none: another run's checkpoint
  RankActivity* activity = nullptr;             // tells a watchdog what this rank waits for
};

class Trainer {
 public:
  Trainer(const RunConfig& config, const TrainOptions& options, Backend& backend,
          Communicator& ranks);

  // Trains to the last step, or until asked to stop. Throws where the run diverged or failed; the
  // run directory says so first.
  RunStatus run();

  const RecordedRegion& recording() const { return training_step_.recording(); }

 private:
  struct StepTime {
    double seconds, waited;  // in all, and of that for other ranks
  };

  void resume();
  void start_from(const std::filesystem::path& checkpoint);
  void announce();
  RunStatus loop();
  void record(const StepOutcome& outcome, const StepTime& time);
  bool evaluation_due(std::int64_t step) const;
  NextStep after(std::int64_t step) const;
  void announce_recording();
  void stop_if_diverged(const UpdateResult& update);
  void evaluate();
  void save_checkpoint();
  void finish(RunStatus status);
  RunSummary summary_now(RunStatus status, const std::string& message) const;
  RunDirectory::Role role() const;
  std::filesystem::path checkpoint_root() const;
  std::int64_t tokens() const { return state_.step * config_.train.batch_tokens; }
  double flops() const { return flops_per_token_ * static_cast<double>(tokens()); }
  double wall_seconds() const { return state_.wall_s + since_start_.seconds(); }

  RunConfig config_;
  TrainOptions options_;
  Backend& backend_;
  CommunicationLog communication_;
  std::unique_ptr<Communicator> ranks_;  // of which all groups are made, so that all are counted
  double flops_per_token_;
  std::int64_t steps_;
  TrainingData data_;
  std::unique_ptr<ValidationData> validation_;
  StepTrace trace_;
  Layout layout_;
  PipelineModel model_;
  Optimizer optimizer_;
  GradientStep gradients_;
  TrainingStep training_step_;
  std::optional<Evaluator> evaluator_;
  TrainingState state_;
  Stopwatch since_start_;
  std::optional<RunDirectory> directory_;
  std::optional<CheckpointWriter> writer_;
  Progress progress_;
  std::string recording_;        // what was said of it last
  double seconds_per_step_ = 0;  // running mean, for the ETA
  bool diverged_ = false;
};

}  // namespace convoy
