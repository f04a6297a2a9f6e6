// The configuration of a run: what a TOML file and `--set a.b=c` say, with every default.
// Reading reports all problems at once: unknown keys (with the nearest known one), wrong types,
// values out of range, combinations that cannot work, settings that would be ignored.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/backend.h"
#include "models/model_config.h"

namespace convoy {

struct ParallelConfig {
  std::int64_t dp = 0;  // 0: all ranks that the other axes leave
  std::int64_t tp = 1, pp = 1, ep = 1, cp = 1;
  bool sequence_parallel = false;  // tp ranks also split the rows between the layers
  bool overlap = true;  // false: whatever is sent is waited for at once; the bits are the same
  std::string schedule = "1f1b";    // gpipe | 1f1b | interleaved | zb-h1 | zb-v
  std::int64_t virtual_stages = 0;  // of each pipeline rank; 0: what the schedule wants
  std::int64_t zero = 0;  // what data parallel ranks divide: 1 moments, 2 gradients, 3 weights
  std::string recompute = "none";     // none | block: which activations are recomputed
  std::int64_t recompute_blocks = 0;  // how many blocks, from the first; 0: all
  // A rank that waits longer for others ends the run with a report that names who is behind; 0:
  // waits for ever. Longer than the slowest checkpoint takes to write.
  double communication_deadline_s = 600;
};

struct TrainConfig {
  std::int64_t steps = 0, tokens = 0;  // one of steps, tokens, flops is given
  double flops = 0;                    // training FLOPs; steps = floor
  std::int64_t batch_tokens = 8192;    // per optimizer step, over all ranks
  std::int64_t micro_batch = 8;        // sequences
  std::int64_t seed = 0;
  std::string precision = "f32";  // f64 | f32 | bf16
  std::string device = "auto";    // auto (a GPU where there is one) | cpu | cuda
  bool cuda_graph = true;  // a lone GPU records its step and replays it; the bits are the same
};

struct OptimizerConfig {
  std::string name = "adamw";
  double lr = 1e-3;
  std::array<double, 2> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;              // global gradient norm; 0: off
  double spike_factor = 0;        // skip steps whose norm exceeds this multiple of the average
  std::int64_t max_skipped = 10;  // stop after so many bad steps in a row
};

struct LrScheduleConfig {
  std::string kind = "cosine";    // cosine | wsd
  std::int64_t warmup_steps = 0;  // at most one of the three
  std::int64_t warmup_tokens = 0;
  double warmup_fraction = 0;
  double min_lr = 0;
  double cooldown = 0.2;         // wsd: the last share of the steps
  std::string shape = "1-sqrt";  // wsd: 1-sqrt | linear
};

struct DataConfig {
  std::vector<std::string> train;  // token files, or tasks such as "mqar:pairs=8"
  std::string val;
  std::vector<double> mix;         // weights of the training files
  std::string pack = "documents";  // documents | stream
  std::int64_t seed = 0;
};

struct EvalConfig {
  std::int64_t every = 0;    // steps; 0: only at the end
  std::int64_t batches = 0;  // micro-batches of validation windows; 0: all
};

struct CheckpointConfig {
  std::string dir;         // empty: `checkpoints` in the run directory
  std::int64_t every = 0;  // steps; 0: only at the end and when stopped
  std::vector<std::int64_t>
      at;  // steps whose checkpoints are written and stay whatever `keep` says
  std::int64_t keep = 2;
  bool async = true;
};

struct LogConfig {
  std::int64_t every = 10;       // steps between lines
  std::string console = "auto";  // auto | progress | lines | quiet
  std::string trace;             // a file for chrome://tracing, in the run directory; empty: none
  std::vector<std::int64_t> trace_steps = {2, 3};  // the first and the last step in it
};

struct RunConfig {
  ModelConfig model;
  ParallelConfig parallel;
  TrainConfig train;
  NumericsMode numerics = NumericsMode::fast;
  bool deterministic = true;  // false: a GPU may give up equal bits from run to run for speed
  std::string matmul_table;   // a file of `convoy bench matmul`; empty: the library's own choices
  OptimizerConfig optimizer;
  LrScheduleConfig lr_schedule;
  DataConfig data;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  LogConfig log;

  std::string origin;                     // the file, for messages
  std::vector<std::string> keys_changed;  // "train.steps": keys whose value is not the default
  std::vector<std::string> problems;      // found while reading: unknown keys, wrong types
};

// Reads a TOML file (may be empty: defaults) and overrides "a.b=c". What does not parse throws;
// what is unknown or of the wrong type goes into `problems`, to be reported with everything else.
RunConfig read_config(const std::string& path, const std::vector<std::string>& overrides);
RunConfig parse_config(const std::string& toml, const std::string& origin,
                       const std::vector<std::string>& overrides);

// The resolved configuration as TOML; reading it back gives the same run.
std::string to_toml(const RunConfig& config);
// Every key ("train.steps") with its value as TOML.
std::map<std::string, std::string> settings_of(const RunConfig& config);

// All problems of a training run on `ranks` ranks, those of reading the configuration included.
std::vector<std::string> problems_of(const RunConfig& config, int ranks);
// Throws one Error that lists the problems, if there are any: of a training run, of a model alone.
void require_trainable(const RunConfig& config, int ranks);
void require_sound_model(const RunConfig& config);

// Derived numbers of a valid configuration.
std::int64_t total_steps(const RunConfig& config);
std::int64_t warmup_steps(const RunConfig& config);
std::int64_t micro_batches(const RunConfig& config);  // of one optimizer step, over all ranks
DType dtype_of_run(const RunConfig& config);

}  // namespace convoy
