#include "models/attention.h"

#include <cmath>

namespace convoy {
namespace {

double output_std(const ModelConfig& model) {
  if (!model.depth_scaled_init) return model.init_std;
  return model.init_std / std::sqrt(2.0 * static_cast<double>(model.n_layers));
}

// Two parts of a matrix as one where they are its first columns, else nothing.
Tensor side_by_side(const Tensor& joined, const Tensor& left, const Tensor& right) {
  const bool are = joined.cols() >= left.cols() + right.cols() && joined.data() == left.data() &&
                   joined.column_range(left.cols(), right.cols()).data() == right.data() &&
                   joined.row_stride() == left.row_stride() &&
                   joined.row_stride() == right.row_stride();
  return are ? joined.column_range(0, left.cols() + right.cols()) : Tensor();
}

}  // namespace

Attention::Attention(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
                     const std::string& prefix)
    : query_heads_(model.n_heads / sharding.tp.size()),
      kv_heads_(model.kv_heads() / sharding.tp.size()),
      head_width_(model.head_width()),
      rope_theta_(model.rope_theta),
      key_shards_(sharding),
      qkv_(store, model, sharding, SplitBy::outputs, prefix,
           {{ConvSite::q, model.init_std},
            {ConvSite::k, model.init_std},
            {ConvSite::v, model.init_std}}),
      o_(store, model, sharding, SplitBy::inputs, prefix, {{ConvSite::o, output_std(model)}}) {
  if (!model.qk_norm) return;
  // Each rank has its heads' share of the gradients.
  constexpr auto kShare = LocalGradient::partial_over_tp;
  q_norm_.emplace(store, prefix + "q_norm.weight", head_width_, model.norm_eps, kShare);
  k_norm_.emplace(store, prefix + "k_norm.weight", head_width_, model.norm_eps, kShare);
}

AttentionShape Attention::shape(const BatchView& batch) const {
  return key_shards_.shape(batch, {batch.sequences, batch.length, query_heads_, kv_heads_,
                                   head_width_, batch.one_document});
}

// Norm, where there is one, and rotation in place: nothing else needs the tensor before it.
Tensor Attention::rotated(const Context& context, const BatchView& batch, Tensor x,
                          const std::optional<RmsNorm>& norm, RmsNorm::Saved& saved) const {
  Tensor y = norm ? norm->forward(context, x, saved) : x;
  ops::rope(context, y, batch.positions, head_width_, rope_theta_, RopeDirection::forward);
  return y;
}

void Attention::backward_rotated(const Context& context, const BatchView& batch, Tensor dx,
                                 Tensor dy, const std::optional<RmsNorm>& norm,
                                 RmsNorm::Saved& saved) const {
  ops::rope(context, dy, batch.positions, head_width_, rope_theta_, RopeDirection::backward);
  if (norm) norm->backward_input(context, dx, dy, saved);
}

// q and k as one matrix where nothing came between the matmul that made them and their rotation.
void Attention::rotate(const Context& context, const BatchView& batch, Saved& saved) const {
  const auto& [q, k, v] = saved.qkv.outputs;
  if (const Tensor both = side_by_side(saved.qkv.joined, q, k); !q_norm_ && !both.empty()) {
    ops::rope(context, both, batch.positions, head_width_, rope_theta_, RopeDirection::forward);
    saved.q = q;
    saved.k = k;
    return;
  }
  saved.q = rotated(context, batch, q, q_norm_, saved.q_norm);
  saved.k = rotated(context, batch, k, k_norm_, saved.k_norm);
}

// What the norms read is in qkv's outputs, what attention reads in q, k and v.
std::array<AttentionInput, 3> Attention::inputs(Saved& saved) const {
  std::array<AttentionInput, 3> all;
  const Tensor outputs[] = {saved.q, saved.k, saved.v};
  const std::optional<RmsNorm>* norms[] = {&q_norm_, &k_norm_, nullptr};
  RmsNorm::Saved* saved_norms[] = {&saved.q_norm, &saved.k_norm, nullptr};
  for (std::size_t i = 0; i < all.size(); ++i) {
    const ConvolvedInput convolution = qkv_.convolution(i, saved.qkv);
    all[i] = {outputs[i], convolution.x, convolution.filters, convolution.conv, {}, {}, {}, i < 2};
    if (i == 2 || !*norms[i]) continue;
    all[i].convolved = convolution.y;
    all[i].rstd = saved_norms[i]->rstd;
    all[i].norm_weight = (*norms[i])->operands().weight;
  }
  return all;
}

HeadsShape Attention::heads(const BatchView& batch) const {
  return {qkv_.whole_rows(batch), batch.positions, head_width_, rope_theta_,
          q_norm_ ? q_norm_->operands().epsilon : 0};
}

void Attention::convolve_and_rotate(const Context& context, const BatchView& batch,
                                    Saved& saved) const {
  const auto& [q, k, v] = saved.qkv.outputs;
  saved.q = q_norm_ ? q_norm_->prepare(context, q, saved.q_norm) : q;
  saved.k = k_norm_ ? k_norm_->prepare(context, k, saved.k_norm) : k;
  ops::attention_inputs_forward(context, inputs(saved), heads(batch));
}

void Attention::convolve_and_rotate_back(const Context& context, const BatchView& batch,
                                         const std::array<Tensor, 3>& gradients,
                                         Saved& saved) const {
  const std::array<AttentionInput, 3> all = inputs(saved);
  std::array<AttentionInputGradients, 3> back;
  for (std::size_t i = 0; i < all.size(); ++i) {
    back[i] = {gradients[i], {}, {}, qkv_.gradients(i, saved.qkv)};
    if (!all[i].norm_weight.empty()) back[i].dconvolved = saved.qkv.doutputs[i];
  }
  if (q_norm_) {
    back[0].dnorm_weight = q_norm_->operands().dweight;
    back[1].dnorm_weight = k_norm_->operands().dweight;
    saved.q_norm.weight_done = saved.k_norm.weight_done = true;
  }
  ops::attention_inputs_backward(context, back, all, heads(batch));
}

// What the norms read, where the one operation may not have written it.
void Attention::convolve_again(const Context& context, const BatchView& batch, Saved& saved) const {
  if (context.backend.keeps_convolved()) return;
  for (const std::size_t i : {0u, 1u}) {
    const ConvolvedInput in = qkv_.convolution(i, saved.qkv);
    ops::conv_forward(context, in.y, in.x, in.filters, in.conv, qkv_.whole_rows(batch));
  }
}

void Attention::attend(const Context& context, const BatchView& batch, Tensor x,
                       Saved& saved) const {
  const bool whole = qkv_.convolves_whole_rows();
  qkv_.forward(context, batch, x, saved.qkv, whole ? Convolutions::by_caller : Convolutions::here);
  const auto& q = saved.qkv.outputs[0];
  saved.v = saved.qkv.outputs[2];
  whole ? convolve_and_rotate(context, batch, saved) : rotate(context, batch, saved);
  saved.keys = key_shards_.whole(context, batch, {saved.k, saved.v});
  saved.out = context.take({q.rows(), q.cols()});
  saved.log_sum_exp = context.take_statistics({q.rows(), query_heads_});
  ops::attention_forward(context, saved.out, saved.log_sum_exp, saved.q, saved.keys.k, saved.keys.v,
                         batch.document_start, shape(batch));
}

Tensor Attention::forward(const Context& context, const BatchView& batch, Tensor x,
                          Saved& saved) const {
  attend(context, batch, x, saved);
  o_.forward(context, batch, saved.out, saved.o);
  return saved.o.outputs[0];
}

void Attention::forward_add(const Context& context, const BatchView& batch, Tensor sum, Tensor x,
                            Tensor residual, Saved& saved) const {
  attend(context, batch, x, saved);
  o_.forward_add(context, batch, sum, saved.out, residual, saved.o);
}

void Attention::backward_input(const Context& context, const BatchView& batch, Tensor dx, Tensor dy,
                               Saved& saved) const {
  o_.prepare_backward(context, saved.o, dy);
  Tensor dout = context.take({saved.out.rows(), saved.out.cols()});
  o_.backward_input(context, batch, dout, saved.o);

  qkv_.prepare_backward(context, saved.qkv);
  const auto& [dq, dk, dv] = saved.qkv.doutputs;
  Tensor dq_rotated = q_norm_ ? context.take({dq.rows(), dq.cols()}) : dq;
  Tensor dk_rotated = k_norm_ ? context.take({dk.rows(), dk.cols()}) : dk;
  const KeyShards::Pair dkeys = key_shards_.share_for(context, batch, {dk_rotated, dv});
  ops::attention_backward(context, dq_rotated, dkeys.k, dkeys.v, dout, saved.q, saved.keys.k,
                          saved.keys.v, saved.out, saved.log_sum_exp, batch.document_start,
                          shape(batch));
  key_shards_.sum_into(context, batch, {dk_rotated, dv}, dkeys);
  const bool at_once = qkv_.convolves_back_at_once(context);
  if (!at_once && q_norm_ && qkv_.convolves_whole_rows()) convolve_again(context, batch, saved);
  if (at_once) {
    convolve_and_rotate_back(context, batch, {dq_rotated, dk_rotated, dv}, saved);
  } else if (const Tensor both = side_by_side(saved.qkv.djoined, dq, dk);
             !q_norm_ && !both.empty()) {
    ops::rope(context, both, batch.positions, head_width_, rope_theta_, RopeDirection::backward);
  } else {
    backward_rotated(context, batch, dq, dq_rotated, q_norm_, saved.q_norm);
    backward_rotated(context, batch, dk, dk_rotated, k_norm_, saved.k_norm);
  }
  const ArenaScope scope(context.arena);
  Work sum = qkv_.start_backward_input(context, batch, dx, saved.qkv,
                                       at_once ? Convolutions::by_caller : Convolutions::here);
  if (context.parts == BackwardParts::together) add_weight_gradients(context, batch, saved);
  sum.wait();
}

void Attention::backward_weight(const Context& context, const BatchView& batch,
                                Saved& saved) const {
  if (context.parts == BackwardParts::apart) add_weight_gradients(context, batch, saved);
}

void Attention::add_weight_gradients(const Context& context, const BatchView& batch,
                                     Saved& saved) const {
  o_.backward_weight(context, batch, saved.o);
  qkv_.backward_weight(context, batch, saved.qkv);
  if (q_norm_) q_norm_->backward_weight(context, saved.q_norm);
  if (k_norm_) k_norm_->backward_weight(context, saved.k_norm);
}

}  // namespace convoy
