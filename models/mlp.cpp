#include "models/mlp.h"

#include <cmath>

namespace convoy {

Mlp::Mlp(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
         const std::string& prefix)
    : gate_up_(store, model, sharding, SplitBy::outputs, prefix,
               {{ConvSite::gate, model.init_std}, {ConvSite::up, model.init_std}}),
      down_(store, model, sharding, SplitBy::inputs, prefix,
            {{ConvSite::down,
              model.depth_scaled_init
                  ? model.init_std / std::sqrt(2.0 * static_cast<double>(model.n_layers))
                  : model.init_std}}) {}

void Mlp::activate(const Context& context, const BatchView& batch, Tensor x, Saved& saved) const {
  if (!gate_up_.convolves_whole_rows()) {
    gate_up_.forward(context, batch, x, saved.gate_up);
    const auto& [gate, up, none] = saved.gate_up.outputs;
    saved.activation = context.take({gate.rows(), gate.cols()});
    return ops::swiglu_forward(context, saved.activation, gate, up);
  }
  gate_up_.forward(context, batch, x, saved.gate_up,
                   gate_up_.keeps_gate_and_up(context) ? Convolutions::by_caller
                                                       : Convolutions::by_caller_unkept);
  const ConvolvedInput gate = gate_up_.convolution(0, saved.gate_up);
  saved.activation = context.take({gate.x.rows(), gate.x.cols()});
  ops::conv_swiglu_forward(context, saved.activation, gate, gate_up_.convolution(1, saved.gate_up),
                           gate_up_.whole_rows(batch));
}

Tensor Mlp::forward(const Context& context, const BatchView& batch, Tensor x, Saved& saved) const {
  activate(context, batch, x, saved);
  down_.forward(context, batch, saved.activation, saved.down);
  return saved.down.outputs[0];
}

void Mlp::forward_add(const Context& context, const BatchView& batch, Tensor sum, Tensor x,
                      Tensor residual, Saved& saved) const {
  activate(context, batch, x, saved);
  down_.forward_add(context, batch, sum, saved.activation, residual, saved.down);
}

void Mlp::backward_input(const Context& context, const BatchView& batch, Tensor dx, Tensor dy,
                         Saved& saved) const {
  down_.prepare_backward(context, saved.down, dy);
  Tensor dactivation = context.take({saved.activation.rows(), saved.activation.cols()});
  down_.backward_input(context, batch, dactivation, saved.down);

  gate_up_.prepare_backward(context, saved.gate_up);
  activate_back(context, batch, dactivation, saved);
  const ArenaScope scope(context.arena);
  Work sum = gate_up_.start_backward_input(context, batch, dx, saved.gate_up);
  if (context.parts == BackwardParts::together) add_weight_gradients(context, batch, saved);
  sum.wait();
}

// The gradients of gate and up from that of the activation.
void Mlp::activate_back(const Context& context, const BatchView& batch, Tensor dactivation,
                        Saved& saved) const {
  const auto& [dgate, dup, none] = saved.gate_up.doutputs;
  if (gate_up_.convolves_whole_rows()) {
    return ops::conv_swiglu_backward(
        context, dgate, dup, dactivation, gate_up_.convolution(0, saved.gate_up),
        gate_up_.convolution(1, saved.gate_up), gate_up_.whole_rows(batch));
  }
  ops::swiglu_backward(context, dgate, dup, dactivation, saved.gate_up.outputs[0],
                       saved.gate_up.outputs[1]);
}

void Mlp::backward_weight(const Context& context, const BatchView& batch, Saved& saved) const {
  if (context.parts == BackwardParts::apart) add_weight_gradients(context, batch, saved);
}

void Mlp::add_weight_gradients(const Context& context, const BatchView& batch, Saved& saved) const {
  down_.backward_weight(context, batch, saved.down);
  gate_up_.backward_weight(context, batch, saved.gate_up);
}

}  // namespace convoy
