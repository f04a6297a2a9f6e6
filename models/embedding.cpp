#include "models/embedding.h"

namespace convoy {

Placement vocabulary_placement(const ModelConfig& model) {
  return {.shape = {model.vocab, model.d_model},
          .split = Split{0, MeshAxis::tp, 1, Padding::allowed}};
}

Embedding::Embedding(ParameterStore& store, const ModelConfig& model, const Sharding& sharding)
    : shards_(sharding),
      rank_(sharding.tp.rank()),
      weight_(&store.declare("embedding.weight", vocabulary_placement(model),
                             Initializer::normal(model.init_std), WeightDecay::yes)) {}

TableRange Embedding::range() const {
  return {weight_->shape[0] * rank_, weight_->placement.shape[0]};
}

void Embedding::forward(const Context& context, const BatchView& batch, Tensor y) const {
  const ArenaScope scope(context.arena);
  const Tensor share = shards_.share_for(context, batch, y);
  ops::embedding_forward(context, share, weight_->value, batch.tokens, range());
  shards_.sum_into(context, batch, y, share);
}

void Embedding::backward(const Context& context, const BatchView& batch, Tensor dy) const {
  const ArenaScope scope(context.arena);
  ops::embedding_backward(context, weight_->gradient, shards_.complete(context, batch, dy),
                          batch.tokens, range());
}

}  // namespace convoy
