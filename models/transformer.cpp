#include "models/transformer.h"

namespace convoy {

void Transformer::train(const Context& context, const BatchView& batch, Tensor losses,
                        double scale) const {
  const ArenaScope scope(context.arena);
  // The two ends of a block's backward pass lie below everything that is freed on the way.
  const Tensor dx = context.take({batch.own_rows(), model_.d_model});
  const Tensor dy = context.take({batch.own_rows(), model_.d_model});
  TransformerStage::Saved saved;
  GradientHooks none;
  stage_.forward({context, batch, saved}, {}, {});
  stage_.backward({context, batch, saved}, {{}, {}, losses, scale}, {context, {dx, dy}}, none);
}

void Transformer::evaluate(const Context& context, const BatchView& batch, Tensor losses,
                           Tensor statistics) const {
  const ArenaScope scope(context.arena);
  TransformerStage::Saved saved;
  stage_.forward({context, batch, saved}, {}, {});
  stage_.losses({context, batch, saved}, losses, statistics);
}

Tensor Transformer::logits(const Context& context, const BatchView& batch) const {
  TransformerStage::Saved saved;
  stage_.forward({context, batch, saved}, {}, {});
  return stage_.head().logits(context, saved.hidden);
}

Tensor Transformer::next_token_logits(const Context& context, const BatchView& batch,
                                      std::int64_t last_row) const {
  TransformerStage::Saved saved;
  stage_.forward({context, batch, saved}, {}, {});
  Tensor last = context.take({batch.sequences, model_.d_model});
  for (std::int64_t b = 0; b < batch.sequences; ++b) {
    ops::copy(context, last.row_range(b, 1),
              saved.hidden.row_range(b * batch.length + last_row, 1));
  }
  return stage_.head().logits(context, last);
}

}  // namespace convoy
