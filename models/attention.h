// The attention half of a block: q, k, v projections (each with or without a dynamic convolution),
// optional QK-norm, rotary positions, causal attention, output projection. Heads are split over tp:
// Q query heads and kv key/value heads are those of this rank.
#pragma once

#include <optional>

#include "models/key_shards.h"
#include "models/norm.h"
#include "models/projection.h"

namespace convoy {

class Attention {
 public:
  struct Saved {
    Projection::Saved qkv, o;
    RmsNorm::Saved q_norm, k_norm;
    Tensor q, k, v;        // [rows, Q*K], [rows, kv*K]: q and k after norm and rotation
    KeyShards::Pair keys;  // of whole sequences
    Tensor out;            // [rows, Q*K]
    Tensor log_sum_exp;    // [rows, Q]
  };

  Attention(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
            const std::string& prefix);

  // x [own_rows, D] -> [own_rows, D]
  Tensor forward(const Context& context, const BatchView& batch, Tensor x, Saved& saved) const;
  // The same with the residual, where adds_residual().
  void forward_add(const Context& context, const BatchView& batch, Tensor sum, Tensor x,
                   Tensor residual, Saved& saved) const;
  bool adds_residual() const { return o_.adds_residual(); }
  void backward_input(const Context& context, const BatchView& batch, Tensor dx, Tensor dy,
                      Saved& saved) const;
  // Where both halves run together, the weights' gradients ran while dx was summed over tp.
  void backward_weight(const Context& context, const BatchView& batch, Saved& saved) const;

 private:
  void attend(const Context& context, const BatchView& batch, Tensor x, Saved& saved) const;
  void rotate(const Context& context, const BatchView& batch, Saved& saved) const;
  // The same and the convolutions as one operation, and back.
  void convolve_and_rotate(const Context& context, const BatchView& batch, Saved& saved) const;
  void convolve_and_rotate_back(const Context& context, const BatchView& batch,
                                const std::array<Tensor, 3>& gradients, Saved& saved) const;
  void convolve_again(const Context& context, const BatchView& batch, Saved& saved) const;
  std::array<AttentionInput, 3> inputs(Saved& saved) const;
  HeadsShape heads(const BatchView& batch) const;
  void add_weight_gradients(const Context& context, const BatchView& batch, Saved& saved) const;
  Tensor rotated(const Context& context, const BatchView& batch, Tensor x,
                 const std::optional<RmsNorm>& norm, RmsNorm::Saved& saved) const;
  void backward_rotated(const Context& context, const BatchView& batch, Tensor dx, Tensor dy,
                        const std::optional<RmsNorm>& norm, RmsNorm::Saved& saved) const;
  AttentionShape shape(const BatchView& batch) const;

  std::int64_t query_heads_, kv_heads_, head_width_;  // of this rank
  double rope_theta_;
  KeyShards key_shards_;
  Projection qkv_;
  std::optional<RmsNorm> q_norm_, k_norm_;
  Projection o_;
};

}  // namespace convoy
