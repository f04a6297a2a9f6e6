// What a model computes, written down for another program to compute again: a micro-batch of the
// training data with logits, losses and all gradients, or the batches of the first steps.
#pragma once

#include <filesystem>
#include <optional>

#include "launch/checkpoint/checkpoint.h"
#include "launch/config.h"

namespace convoy {

struct InspectedModel {
  RunConfig config;
  std::optional<Checkpoint> checkpoint;  // without one, weights are as the seed starts them
};

// `source`: a configuration (TOML), or a checkpoint or run directory, whose weights are taken.
// Either's settings may be overridden. Throws on what could not be trained on one rank.
InspectedModel open_inspected(const std::filesystem::path& source,
                              const std::vector<std::string>& overrides);

// One micro-batch, samples `first_sample` on, as a safetensors file (B sequences of T, V classes):
//   tokens, targets (-1: not counted), document_start   i32 [B, T]
//   logits      [B, T, V] in the precision of the run
//   losses      f64 [B, T] nats, 0 where not counted; their sum over the counted targets is what
//               the gradients belong to
//   NAME            each parameter under its exported name, masters in f32 where they are kept
//   gradient.NAME   its gradient
void write_gradients(const InspectedModel& model, std::int64_t first_sample,
                     const std::filesystem::path& output);

// The batches of steps 1 to `steps`: tokens, targets, document_start, i32 [steps, sequences, T].
void write_batches(const RunConfig& config, std::int64_t steps,
                   const std::filesystem::path& output);

}  // namespace convoy
