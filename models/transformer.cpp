#include "models/transformer.h"

#include "core/error.h"

namespace convoy {

Transformer::Transformer(ParameterStore& store, const ModelConfig& model,
                         std::int64_t recompute_blocks)
    : model_(model),
      embedding_(&store.declare("embedding.weight", {model.vocab, model.d_model},
                                Initializer::normal(model.init_std), WeightDecay::yes)) {
  blocks_.reserve(static_cast<std::size_t>(model.n_layers));
  for (std::int64_t i = 0; i < model.n_layers; ++i) {
    blocks_.emplace_back(store, model, i, i < recompute_blocks ? Recompute::yes : Recompute::no);
  }
  final_norm_.emplace(store, "final_norm.weight", model.d_model, model.norm_eps);
  if (model.tie_embeddings) {
    head_.emplace(*embedding_, store.declare_second_gradient(*embedding_));
  } else {
    const Parameter& weight = store.declare("head.weight", {model.vocab, model.d_model},
                                            Initializer::normal(model.init_std), WeightDecay::yes);
    head_.emplace(weight, weight.gradient);
  }
}

// The rows after the final norm, [rows, D].
Tensor Transformer::hidden(const Context& context, const BatchView& batch, Saved& saved) const {
  const std::int64_t rows = batch.rows();
  saved.blocks.resize(blocks_.size());
  saved.activations.resize(blocks_.size() + 1);
  for (auto& activation : saved.activations) activation = context.take({rows, model_.d_model});
  ops::embedding_forward(context, saved.activations[0], embedding_->value, batch.tokens);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Doing doing(concat("block ", i));
    saved.marks.push_back(context.arena.mark());
    blocks_[i].forward(context, batch, saved.activations[i + 1], saved.activations[i],
                       saved.blocks[i]);
  }
  return final_norm_->forward(context, saved.activations.back(), saved.final_norm);
}

void Transformer::train(const Context& context, const BatchView& batch, Tensor losses,
                        double scale) const {
  const ArenaScope scope(context.arena);
  // The two ends of a block's backward pass lie below everything that is freed on the way.
  Tensor dx = context.take({batch.rows(), model_.d_model});
  Tensor dy = context.take({batch.rows(), model_.d_model});
  Saved saved;
  Tensor rows = hidden(context, batch, saved);
  {
    const Doing doing("head");
    head_->losses_and_gradients(context, losses, dx, rows, batch.targets, scale);
  }
  final_norm_->backward_input(context, dy, dx, saved.final_norm);
  final_norm_->backward_weight(context, saved.final_norm);
  backward(context, batch, dy, dx, saved);
}

void Transformer::backward(const Context& outer, const BatchView& batch, Tensor dhidden,
                           Tensor dx_scratch, Saved& saved) const {
  Context context = outer;
  context.parts = BackwardParts::together;
  Tensor dy = dhidden;
  Tensor dx = dx_scratch;
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const Doing doing(concat("backward of block ", i));
    blocks_[i].backward_input(context, batch, dx, dy, saved.blocks[i]);
    blocks_[i].backward_weight(context, batch, saved.blocks[i]);
    context.arena.release(saved.marks[i]);
    std::swap(dx, dy);
  }
  ops::embedding_backward(context, embedding_->gradient, dy, batch.tokens);
}

void Transformer::evaluate(const Context& context, const BatchView& batch, Tensor losses) const {
  const ArenaScope scope(context.arena);
  Saved saved;
  head_->losses(context, losses, hidden(context, batch, saved), batch.targets);
}

Tensor Transformer::next_token_logits(const Context& context, const BatchView& batch,
                                      std::int64_t last_row) const {
  Saved saved;
  const Tensor rows = hidden(context, batch, saved);
  Tensor last = context.take({batch.sequences, model_.d_model});
  for (std::int64_t b = 0; b < batch.sequences; ++b) {
    ops::copy(context, last.row_range(b, 1), rows.row_range(b * batch.length + last_row, 1));
  }
  return head_->logits(context, last);
}

}  // namespace convoy
