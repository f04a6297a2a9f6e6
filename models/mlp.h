// The feed-forward half of a block: down(silu(gate(x)) * up(x)) (SwiGLU, arXiv 2002.05202).
#pragma once

#include "models/projection.h"

namespace convoy {

class Mlp {
 public:
  struct Saved {
    Projection::Saved gate_up, down;
    Tensor activation;  // [rows, F / tp]
  };

  Mlp(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
      const std::string& prefix);

  // x [own_rows, D] -> [own_rows, D]
  Tensor forward(const Context& context, const BatchView& batch, Tensor x, Saved& saved) const;
  // The same with the residual, where adds_residual().
  void forward_add(const Context& context, const BatchView& batch, Tensor sum, Tensor x,
                   Tensor residual, Saved& saved) const;
  bool adds_residual() const { return down_.adds_residual(); }
  void backward_input(const Context& context, const BatchView& batch, Tensor dx, Tensor dy,
                      Saved& saved) const;
  // Where both halves run together, the weights' gradients ran while dx was summed over tp.
  void backward_weight(const Context& context, const BatchView& batch, Saved& saved) const;

 private:
  void activate(const Context& context, const BatchView& batch, Tensor x, Saved& saved) const;
  void activate_back(const Context& context, const BatchView& batch, Tensor dactivation,
                     Saved& saved) const;
  void add_weight_gradients(const Context& context, const BatchView& batch, Saved& saved) const;
  Projection gate_up_, down_;
};

}  // namespace convoy
