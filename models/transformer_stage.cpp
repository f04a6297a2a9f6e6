#include "models/transformer_stage.h"

#include "core/error.h"

namespace convoy {
namespace {

Tensor rows_of(const Context& context, const BatchView& batch, const ModelConfig& model) {
  return context.take({batch.own_rows(), model.d_model});
}

const ModelConfig& checked(const ModelConfig& model, const Sharding& sharding) {
  std::string text;
  for (const auto& problem : sharding_problems(model, sharding.mesh, sharding.sequence_parallel)) {
    text += (text.empty() ? "" : "\n") + problem;
  }
  if (!text.empty()) throw Error(text);
  return model;
}

}  // namespace

TransformerStage::TransformerStage(ParameterStore& store, const ModelConfig& model,
                                   const ModelPiece& piece, std::int64_t recompute_blocks,
                                   const Sharding& sharding)
    : model_(checked(model, sharding)), piece_(piece) {
  CHECK(piece.first_block >= 0 && piece.blocks >= 1 &&
            piece.first_block + piece.blocks <= model.n_layers,
        "blocks ", piece.first_block, " and ", piece.blocks - 1, " more of ", model.n_layers);
  if (piece.first) {
    embedding_bucket_ = store.begin_bucket();
    embedding_.emplace(store, model, sharding);
  }
  blocks_.reserve(static_cast<std::size_t>(piece.blocks));
  for (std::int64_t i = piece.first_block; i < piece.first_block + piece.blocks; ++i) {
    block_buckets_.push_back(store.begin_bucket());
    blocks_.emplace_back(store, model, sharding, i,
                         i < recompute_blocks ? Recompute::yes : Recompute::no);
  }
  if (piece.last) declare_head(store, sharding);
}

void TransformerStage::declare_head(ParameterStore& store, const Sharding& sharding) {
  norm_bucket_ = store.begin_bucket();
  final_norm_.emplace(store, "final_norm.weight", model_.d_model, model_.norm_eps,
                      sharding.gradient_of_own_rows());
  if (model_.tie_embeddings && piece_.first) {
    Parameter& table = embedding_->weight();
    head_bucket_ = store.buckets().size();
    head_.emplace(table, store.declare_second_gradient(table), sharding);
    return;
  }
  head_bucket_ = store.begin_bucket();
  const char* name = model_.tie_embeddings ? "embedding.weight" : "head.weight";
  const Parameter& weight = store.declare(name, vocabulary_placement(model_),
                                          Initializer::normal(model_.init_std), WeightDecay::yes);
  head_.emplace(weight, weight.gradient, sharding);
}

void TransformerStage::forward(const Pass& pass, Tensor input, Tensor output) const {
  const auto& [context, batch, saved] = pass;
  const std::size_t count = blocks_.size();
  saved.blocks.resize(count);
  saved.marks.clear();
  saved.activations.assign(count + 1, Tensor());
  for (auto& activation : saved.activations) {
    const bool is_input = &activation == &saved.activations.front() && !piece_.first;
    const bool is_output = &activation == &saved.activations.back() && !piece_.last;
    activation = is_input ? input : is_output ? output : rows_of(context, batch, model_);
  }
  if (piece_.first) {
    embedding_->forward(context, batch, saved.activations[0]);
  }
  for (std::size_t i = 0; i < count; ++i) {
    const Doing doing(concat("block ", piece_.first_block + static_cast<std::int64_t>(i)));
    saved.marks.push_back(context.arena.mark());
    blocks_[i].forward(context, batch, saved.activations[i + 1], saved.activations[i],
                       saved.blocks[i]);
  }
  if (piece_.last) {
    saved.hidden = final_norm_->forward(context, saved.activations.back(), saved.final_norm);
  }
}

void TransformerStage::losses(const Pass& pass, Tensor losses, Tensor statistics) const {
  head_->losses(pass.context, pass.batch, losses, statistics, pass.saved.hidden);
}

// The gradient of the last block's output, in the second of the workspace's rows.
Tensor TransformerStage::backward_head(const Pass& pass, const Ends& ends, const Workspace& work,
                                       GradientHooks& hooks) const {
  const BatchView& batch = pass.batch;
  Saved& saved = pass.saved;
  const auto& [context, rows] = work;
  const auto& [dhidden, dy] = rows;
  const Doing doing("head");
  hooks.begin(*head_bucket_);
  head_->losses_and_gradients(context, batch, ends.losses, dhidden, saved.hidden, ends.scale);
  hooks.end(*head_bucket_);
  hooks.begin(*norm_bucket_);
  final_norm_->backward(context, dy, dhidden, saved.final_norm);
  hooks.end(*norm_bucket_);
  return dy;
}

void TransformerStage::backward(const Pass& pass, const Ends& ends, const Workspace& work,
                                GradientHooks& hooks) const {
  const auto& [context, batch, saved] = pass;
  Context together = work.context;
  together.parts = BackwardParts::together;
  Tensor dy = piece_.last ? backward_head(pass, ends, work, hooks) : ends.d_output;
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const Doing doing(concat("backward of block ", piece_.first_block + static_cast<int>(i)));
    const Tensor& other = dy.data() == work.rows[0].data() ? work.rows[1] : work.rows[0];
    const Tensor dx = i == 0 && !piece_.first ? ends.d_input : other;
    {
      const ArenaScope scope(work.context.arena);
      hooks.begin(block_buckets_[i]);  // either half may add to gradients
      blocks_[i].backward_input(together, batch, dx, dy, saved.blocks[i]);
      blocks_[i].backward_weight(together, batch, saved.blocks[i]);
      hooks.end(block_buckets_[i]);
    }
    context.arena.release(saved.marks[i]);
    dy = dx;
  }
  if (!piece_.first) return;
  hooks.begin(*embedding_bucket_);
  embedding_->backward(work.context, batch, dy);
  hooks.end(*embedding_bucket_);
}

void TransformerStage::backward_input(const Pass& pass, const Ends& ends,
                                      GradientHooks& hooks) const {
  const auto& [context, batch, saved] = pass;
  Tensor dy = ends.d_output;
  if (piece_.last) {
    const Tensor dhidden = rows_of(context, batch, model_);
    dy = backward_head(pass, ends, {context, {dhidden, rows_of(context, batch, model_)}}, hooks);
  }
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const Doing doing(concat("backward of block ", piece_.first_block + static_cast<int>(i)));
    // Not in turns over two: what a block's weight gradients need may include its dy.
    const bool is_end = i == 0 && !piece_.first;
    const Tensor dx = is_end ? ends.d_input : rows_of(context, batch, model_);
    blocks_[i].backward_input(context, batch, dx, dy, saved.blocks[i]);
    dy = dx;
  }
  saved.dembedding = dy;
}

void TransformerStage::backward_weight(const Pass& pass, GradientHooks& hooks) const {
  const auto& [context, batch, saved] = pass;
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const Doing doing(concat("weights of block ", piece_.first_block + static_cast<int>(i)));
    hooks.begin(block_buckets_[i]);
    blocks_[i].backward_weight(context, batch, saved.blocks[i]);
    hooks.end(block_buckets_[i]);
  }
  if (!piece_.first) return;
  hooks.begin(*embedding_bucket_);
  embedding_->backward(context, batch, saved.dembedding);
  hooks.end(*embedding_bucket_);
}

}  // namespace convoy
