#include "models/block.h"

namespace convoy {
namespace {
std::string prefix_of(std::int64_t index) { return "blocks." + std::to_string(index) + "."; }
}  // namespace

Block::Block(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
             std::int64_t index, Recompute recompute)
    : recompute_(recompute),
      attention_norm_(store, prefix_of(index) + "attention_norm.weight", model.d_model,
                      model.norm_eps, sharding.gradient_of_own_rows()),
      attention_(store, model, sharding, prefix_of(index) + "attention.") {
  if (model.d_ff == 0) return;
  mlp_norm_.emplace(store, prefix_of(index) + "mlp_norm.weight", model.d_model, model.norm_eps,
                    sharding.gradient_of_own_rows());
  mlp_.emplace(store, model, sharding, prefix_of(index) + "mlp.");
}

void Block::run_forward(const Context& context, const BatchView& batch, Tensor y,
                        Saved& saved) const {
  const Tensor x = saved.input;
  Tensor h = attention_norm_.forward(context, x, saved.attention_norm);
  if (!mlp_) {
    ops::add(context, y, x, attention_.forward(context, batch, h, saved.attention));
    return;
  }
  Tensor middle = context.take({x.rows(), x.cols()});
  if (attention_.adds_residual()) {
    attention_.forward_add(context, batch, middle, h, x, saved.attention);
    h = mlp_norm_->forward(context, middle, saved.mlp_norm);
  } else {
    const Tensor attended = attention_.forward(context, batch, h, saved.attention);
    h = mlp_norm_->forward_sum(context, middle, x, attended, saved.mlp_norm);
  }
  if (mlp_->adds_residual()) return mlp_->forward_add(context, batch, y, h, middle, saved.mlp);
  ops::add(context, y, middle, mlp_->forward(context, batch, h, saved.mlp));
}

void Block::forward(const Context& context, const BatchView& batch, Tensor y, Tensor x,
                    Saved& saved) const {
  saved.input = x;
  if (recompute_ == Recompute::no) return run_forward(context, batch, y, saved);
  const ArenaScope scope(context.arena);
  run_forward(context, batch, y, saved);
}

void Block::backward_input(const Context& context, const BatchView& batch, Tensor dx, Tensor dy,
                           Saved& saved) const {
  const std::int64_t rows = dy.rows();
  const std::int64_t width = dy.cols();
  if (recompute_ == Recompute::yes) {
    run_forward(context, batch, context.take({rows, width}), saved);
  }
  Tensor dmiddle = dy;
  if (mlp_) {
    Tensor dh = context.take({rows, width});
    dmiddle = context.take({rows, width});
    mlp_->backward_input(context, batch, dh, dy, saved.mlp);
    mlp_norm_->backward_input_add(context, dmiddle, dh, dy, saved.mlp_norm);
  }
  Tensor dh_attention = context.take({rows, width});
  attention_.backward_input(context, batch, dh_attention, dmiddle, saved.attention);
  attention_norm_.backward_input_add(context, dx, dh_attention, dmiddle, saved.attention_norm);
}

void Block::backward_weight(const Context& context, const BatchView& batch, Saved& saved) const {
  if (mlp_) {
    mlp_->backward_weight(context, batch, saved.mlp);
    mlp_norm_->backward_weight(context, saved.mlp_norm);
  }
  attention_.backward_weight(context, batch, saved.attention);
  attention_norm_.backward_weight(context, saved.attention_norm);
}

}  // namespace convoy
