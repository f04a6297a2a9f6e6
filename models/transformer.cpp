#include "models/transformer.h"

#include "core/error.h"

namespace convoy {
namespace {

const ModelConfig& checked(const ModelConfig& model, const Sharding& sharding) {
  std::string text;
  for (const auto& problem : sharding_problems(model, sharding.mesh, sharding.sequence_parallel)) {
    text += (text.empty() ? "" : "\n") + problem;
  }
  if (!text.empty()) throw Error(text);
  return model;
}

}  // namespace

Transformer::Transformer(ParameterStore& store, const ModelConfig& model,
                         std::int64_t recompute_blocks, const Sharding& sharding)
    : model_(checked(model, sharding)), embedding_(store, model, sharding) {
  blocks_.reserve(static_cast<std::size_t>(model.n_layers));
  for (std::int64_t i = 0; i < model.n_layers; ++i) {
    blocks_.emplace_back(store, model, sharding, i,
                         i < recompute_blocks ? Recompute::yes : Recompute::no);
  }
  final_norm_.emplace(store, "final_norm.weight", model.d_model, model.norm_eps,
                      sharding.gradient_of_own_rows());
  if (model.tie_embeddings) {
    Parameter& table = embedding_.weight();
    head_.emplace(table, store.declare_second_gradient(table), sharding);
  } else {
    const Parameter& weight = store.declare("head.weight", vocabulary_placement(model),
                                            Initializer::normal(model.init_std), WeightDecay::yes);
    head_.emplace(weight, weight.gradient, sharding);
  }
}

// The rows after the final norm, [own_rows, D].
Tensor Transformer::hidden(const Context& context, const BatchView& batch, Saved& saved) const {
  const std::int64_t rows = batch.own_rows();
  saved.blocks.resize(blocks_.size());
  saved.activations.resize(blocks_.size() + 1);
  for (auto& activation : saved.activations) activation = context.take({rows, model_.d_model});
  embedding_.forward(context, batch, saved.activations[0]);
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
  Tensor dx = context.take({batch.own_rows(), model_.d_model});
  Tensor dy = context.take({batch.own_rows(), model_.d_model});
  Saved saved;
  Tensor rows = hidden(context, batch, saved);
  {
    const Doing doing("head");
    head_->losses_and_gradients(context, batch, losses, dx, rows, scale);
  }
  final_norm_->backward_input(context, dy, dx, saved.final_norm);
  final_norm_->backward_weight(context, saved.final_norm);
  backward(context, batch, dy, dx, saved);
}

void Transformer::backward(const Context& context, const BatchView& batch, Tensor dhidden,
                           Tensor dx_scratch, Saved& saved) const {
  Tensor dy = dhidden;
  Tensor dx = dx_scratch;
  for (std::size_t i = blocks_.size(); i-- > 0;) {
    const Doing doing(concat("backward of block ", i));
    blocks_[i].backward_input(context, batch, dx, dy, saved.blocks[i]);
    blocks_[i].backward_weight(context, batch, saved.blocks[i]);
    context.arena.release(saved.marks[i]);
    std::swap(dx, dy);
  }
  embedding_.backward(context, batch, dy);
}

void Transformer::evaluate(const Context& context, const BatchView& batch, Tensor losses) const {
  const ArenaScope scope(context.arena);
  Saved saved;
  head_->losses(context, batch, losses, hidden(context, batch, saved));
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
