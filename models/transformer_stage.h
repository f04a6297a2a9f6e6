// TransformerStage: the blocks [first, first + count) of a Transformer, with the embedding where it
// is the first piece and the final norm and the head where it is the last. A whole model is one
// piece. Between pieces travel the rows [own_rows, D] and, back, their gradients.
//
// The backward pass runs at once, block by block, and frees each block's memory on the way; or in
// two halves, of which the second (the weight gradients) may run much later, as pipeline schedules
// want it: then everything that it needs stays where it is.
//
// Where the table is tied and the piece is not the first, the last piece declares a copy of it: one
// gradient is that of the head, the other, on the first piece, that of the look-up.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "models/block.h"
#include "models/embedding.h"
#include "models/head.h"

namespace convoy {

// Which part of a model a stage is.
struct ModelPiece {
  std::int64_t first_block, blocks;
  bool first = true;  // the embedding is here
  bool last = true;   // the final norm and the head are here

  static ModelPiece whole(const ModelConfig& model) { return {0, model.n_layers}; }
};

// Told before and after weight gradients are added to the parameters of a bucket.
class GradientHooks {
 public:
  virtual ~GradientHooks() = default;
  virtual void begin(std::size_t /*bucket*/) {}
  virtual void end(std::size_t /*bucket*/) {}
};

class TransformerStage {
 public:
  // What a micro-batch keeps from its forward pass to the end of its backward pass.
  struct Saved {
    std::vector<Block::Saved> blocks;
    std::vector<Arena::Mark> marks;   // the arena before each block
    std::vector<Tensor> activations;  // [own_rows, D]: the input of block i, and the last output
    RmsNorm::Saved final_norm;
    Tensor hidden;      // [own_rows, D] after the final norm
    Tensor dembedding;  // [own_rows, D], between the two halves of the backward pass
  };

  // A micro-batch on its way through; what is saved lies in the context's arena.
  struct Pass {
    const Context& context;
    const BatchView& batch;
    Saved& saved;
  };

  // The two ends of a backward pass: [own_rows, D] from the next piece, empty at the last, and to
  // the piece before, empty at the first. At the last piece: losses f64 [rows] is set to each row's
  // nats, and the gradients are those of `scale` times their sum.
  struct Ends {
    Tensor d_output, d_input;
    Tensor losses;
    Scalar scale = 0;
  };

  // Memory that a backward pass at once needs beside that of its micro-batch; one for all of them.
  struct Workspace {
    const Context& context;
    std::array<Tensor, 2> rows;  // [own_rows, D] each
  };

  // Keeps of the model's first `recompute_blocks` blocks only their inputs.
  TransformerStage(ParameterStore& store, const ModelConfig& model, const ModelPiece& piece,
                   std::int64_t recompute_blocks, const Sharding& sharding);

  // `input` is empty at the first piece, `output` at the last; it is set.
  void forward(const Pass& pass, Tensor input, Tensor output) const;

  void backward(const Pass& pass, const Ends& ends, const Workspace& work,
                GradientHooks& hooks) const;
  void backward_input(const Pass& pass, const Ends& ends, GradientHooks& hooks) const;
  void backward_weight(const Pass& pass, GradientHooks& hooks) const;

  // After forward, at the last piece: losses f64 [rows], without gradients, and, where given, the
  // softmax statistics [rows, 3].
  void losses(const Pass& pass, Tensor losses, Tensor statistics = {}) const;

  const Head& head() const { return *head_; }
  std::size_t blocks() const { return blocks_.size(); }
  // Where the table is and where its gradient through the head is summed: buckets of the store, if
  // they are on this piece.
  std::optional<std::size_t> embedding_bucket() const { return embedding_bucket_; }
  std::optional<std::size_t> head_bucket() const { return head_bucket_; }

 private:
  void declare_head(ParameterStore& store, const Sharding& sharding);
  Tensor backward_head(const Pass& pass, const Ends& ends, const Workspace& work,
                       GradientHooks& hooks) const;

  ModelConfig model_;
  ModelPiece piece_;
  std::optional<Embedding> embedding_;
  std::vector<Block> blocks_;
  std::vector<std::size_t> block_buckets_;
  std::optional<RmsNorm> final_norm_;
  std::optional<Head> head_;
  std::optional<std::size_t> embedding_bucket_, norm_bucket_, head_bucket_;
};

}  // namespace convoy
