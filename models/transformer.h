// The Llama-style Transformer, whole, on one rank: embedding, blocks, final norm, head. One
// training pass walks the arena like a stack: a block's memory is freed as soon as its backward
// pass is done.
#pragma once

#include "models/transformer_stage.h"

namespace convoy {

class Transformer {
 public:
  // Keeps `recompute_blocks` blocks' activations only as their inputs.
  Transformer(ParameterStore& store, const ModelConfig& model, std::int64_t recompute_blocks = 0,
              const Sharding& sharding = one_rank())
      : model_(model), stage_(store, model, ModelPiece::whole(model), recompute_blocks, sharding) {}

  // One training micro-batch: adds to all gradients those of scale * (summed nats of the
  // micro-batch) and writes losses f64 [rows], the nats of each row.
  void train(const Context& context, const BatchView& batch, Tensor losses, double scale) const;
  // losses f64 [rows] without gradients and, where given, the softmax statistics [rows, 3].
  void evaluate(const Context& context, const BatchView& batch, Tensor losses,
                Tensor statistics = {}) const;
  // Logits [B*T, V] of every row.
  Tensor logits(const Context& context, const BatchView& batch) const;
  // Logits [B, V] of row `last_row` of each sequence.
  Tensor next_token_logits(const Context& context, const BatchView& batch,
                           std::int64_t last_row) const;

  const ModelConfig& config() const { return model_; }

 private:
  ModelConfig model_;
  TransformerStage stage_;
};

}  // namespace convoy
