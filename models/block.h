// One Transformer block, pre-norm: x + attention(norm(x)), then the same with the MLP, unless
// d_ff = 0, where there is none. A block may keep only its input and run its forward pass again
// before its backward pass (recompute).
#pragma once

#include <optional>

#include "models/attention.h"
#include "models/mlp.h"

namespace convoy {

enum class Recompute : bool { no, yes };

class Block {
 public:
  struct Saved {
    Tensor input;  // [own_rows, D]
    RmsNorm::Saved attention_norm, mlp_norm;
    Attention::Saved attention;
    Mlp::Saved mlp;
  };

  Block(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
        std::int64_t index, Recompute recompute);

  // x, y [own_rows, D]. y is set; it must lie outside of what the block takes from the arena.
  void forward(const Context& context, const BatchView& batch, Tensor y, Tensor x,
               Saved& saved) const;
  void backward_input(const Context& context, const BatchView& batch, Tensor dx, Tensor dy,
                      Saved& saved) const;
  void backward_weight(const Context& context, const BatchView& batch, Saved& saved) const;

 private:
  void run_forward(const Context& context, const BatchView& batch, Tensor y, Saved& saved) const;

  Recompute recompute_;
  RmsNorm attention_norm_;
  Attention attention_;
  std::optional<RmsNorm> mlp_norm_;  // with the MLP
  std::optional<Mlp> mlp_;
};

}  // namespace convoy
