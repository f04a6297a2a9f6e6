// Operations that hold several, one after the other: what a device does that has no pass for all.
#include "core/backend.h"

namespace convoy {

void Backend::attention_inputs_forward(std::span<const AttentionInput> inputs,
                                       const HeadsShape& shape) {
  for (const AttentionInput& in : inputs) {
    const bool normed = !in.norm_weight.empty();
    conv_forward(normed ? in.convolved : in.y, in.x, in.filters, in.conv, shape.rows);
    if (normed) rmsnorm_forward(in.y, in.rstd, in.convolved, in.norm_weight, shape.norm_epsilon);
    if (in.rotates) {
      rope(in.y, shape.positions, shape.head_width, shape.rope_theta, RopeDirection::forward);
    }
  }
}

void Backend::attention_inputs_backward(std::span<const AttentionInputGradients> gradients,
                                        std::span<const AttentionInput> inputs,
                                        const HeadsShape& shape) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const AttentionInput& in = inputs[i];
    const AttentionInputGradients& g = gradients[i];
    if (in.rotates) {
      rope(g.dy, shape.positions, shape.head_width, shape.rope_theta, RopeDirection::backward);
    }
    const bool normed = !in.norm_weight.empty();
    if (normed) {
      rmsnorm_backward(g.dconvolved, g.dnorm_weight, g.dy, in.convolved, in.rstd, in.norm_weight,
                       {});
    }
    conv_backward(g.conv, normed ? g.dconvolved : g.dy, in.x, in.filters, in.conv, shape.rows);
  }
}

void Backend::conv_swiglu_forward(Tensor y, const ConvolvedInput& gate, const ConvolvedInput& up,
                                  const ConvRows& rows) {
  conv_forward(gate.y, gate.x, gate.filters, gate.conv, rows);
  conv_forward(up.y, up.x, up.filters, up.conv, rows);
  swiglu_forward(y, gate.y, up.y);
}

void Backend::conv_swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, const ConvolvedInput& gate,
                                   const ConvolvedInput& up, const ConvRows& /*rows*/) {
  swiglu_backward(dgate, dup, dy, gate.y, up.y);
}

}  // namespace convoy
