// The Llama-style Transformer: embedding, blocks, final norm, head. Forward fills Saved, the
// backward pass is split into input and weight parts, and a block's memory is freed as soon as both
// are done, which is why the backward pass walks the arena like a stack.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/embedding.h"
#include "models/head.h"

namespace convoy {

class Transformer {
 public:
  // Keeps `recompute_blocks` blocks' activations only as their inputs.
  Transformer(ParameterStore& store, const ModelConfig& model, std::int64_t recompute_blocks = 0,
              const Sharding& sharding = one_rank());

  // One training micro-batch: adds to all gradients those of scale * (summed nats of the
  // micro-batch) and writes losses f64 [rows], the nats of each row.
  void train(const Context& context, const BatchView& batch, Tensor losses, double scale) const;
  // losses f64 [rows] without gradients.
  void evaluate(const Context& context, const BatchView& batch, Tensor losses) const;
  // Logits [B, V] of row `last_row` of each sequence.
  Tensor next_token_logits(const Context& context, const BatchView& batch,
                           std::int64_t last_row) const;

  const ModelConfig& config() const { return model_; }

 private:
  struct Saved {
    std::vector<Block::Saved> blocks;
    std::vector<Arena::Mark> marks;   // the arena before each block
    std::vector<Tensor> activations;  // [own_rows, D]: the input of block i, and the last output
    RmsNorm::Saved final_norm;
  };

  Tensor hidden(const Context& context, const BatchView& batch, Saved& saved) const;
  void backward(const Context& context, const BatchView& batch, Tensor dhidden, Tensor dx_scratch,
                Saved& saved) const;

  ModelConfig model_;
  Embedding embedding_;
  std::vector<Block> blocks_;
  std::optional<RmsNorm> final_norm_;
  std::optional<Head> head_;
};

}  // namespace convoy
