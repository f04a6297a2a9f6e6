// What a training run puts into a checkpoint and takes out of it: weights, moments, the optimizer's
// control block, the place in the run, the configuration and the tokenizer.
#pragma once

#include <optional>

#include "data/tokenizer.h"
#include "launch/checkpoint/writer.h"
#include "launch/optimizer.h"
#include "parallel/communicator.h"

namespace convoy {

// What a run carries from one process to the next, beside weights and moments.
struct TrainingState {
  std::int64_t step = 0;  // completed
  std::int64_t attempt = 1;
  double wall_s = 0;
  double val_loss = 0, val_bits_per_byte = 0;  // of the last evaluation
  std::int64_t val_targets = 0;                // 0: none yet
};

// Collective: each rank writes its own parts of weights and moments. `counts`: whether this rank
// writes what all ranks of its gradient group have. `tokenizer`: of the data, if they have one.
void save_run_checkpoint(CheckpointWriter& writer, Communicator& world, const RunConfig& config,
                         const TrainingState& state, const Optimizer& optimizer, bool counts,
                         const std::optional<TokenizerDescription>& tokenizer);
// Fills the optimizer's parts, values and moments, from a checkpoint of any layout. Refuses one of
// another model.
TrainingState load_run_checkpoint(const std::filesystem::path& path, const RunConfig& config,
                                  Optimizer& optimizer);

// Refuses to branch from a checkpoint of a run whose past differs from that of this configuration:
// up to the checkpoint's step, every setting but the length of the run, where its files go and how
// it is launched must agree, and so must the learning rate of every step.
void require_same_past(const std::filesystem::path& path, const RunConfig& config);

// For verbs that only use a trained model.
RunConfig config_of_checkpoint(const Checkpoint& checkpoint,
                               const std::vector<std::string>& overrides = {});
void load_parameters(const Checkpoint& checkpoint, ParameterStore& store);
std::unique_ptr<Tokenizer> tokenizer_of_checkpoint(const Checkpoint& checkpoint);

}  // namespace convoy
