// Convolutions, alone and with what stands around them.
#include "core/conv_shape.h"
#include "core/op_checks.h"

namespace convoy::ops {

namespace {
void expect_conv(const Tensor& x, const ConvFilters& filters, const ConvShape& shape,
                 const ConvRows& rows) {
  const std::int64_t channels = x.cols();
  CHECK(shape.width >= 1 && shape.width <= kMaxConvWidth, "a convolution has 1 to ", kMaxConvWidth,
        " taps, not ", shape.width);
  CHECK(x.rows() == rows.segments * rows.length, x.describe(), " is not ", rows.segments,
        " segments of ", rows.length, " rows");
  expect_indices(rows.reach, x.rows(), "reach");
  expect_shape(filters.s, shape.width, channels, "s");
  CHECK(shape.kind != FilterKind::headwise ||
            (shape.head_size > 0 && channels % shape.head_size == 0),
        "head-wise filters of ", shape.head_size, " channels do not divide ", x.describe());
  const std::int64_t generated = generated_columns(shape, channels);
  if (generated > 0) expect_shape(filters.generated, x.rows(), generated, "generated filters");
  if (shape.kind == FilterKind::lowrank) {
    expect_shape(filters.u, shape.filter_rank * shape.width, channels, "u");
  }
  if (!rows.halo.empty()) {
    expect_shape(rows.halo, rows.segments * (shape.width - 1), channels, "halo");
  }
}
}  // namespace

void conv_forward(const Context& context, Tensor y, Tensor x, const ConvFilters& filters,
                  const ConvShape& shape, const ConvRows& rows) {
  expect_device(context, {y, x, filters.s, filters.u, filters.generated, rows.reach, rows.halo});
  expect_conv(x, filters, shape, rows);
  expect_like(y, x, "output of the convolution");
  const Recorded recorded(context, "conv_forward");
  context.backend.conv_forward(y, x, filters, shape, rows);
}

void conv_forward_add(const Context& context, Tensor sum, Tensor x, Tensor addend,
                      const ConvFilters& filters, const ConvShape& shape, const ConvRows& rows) {
  expect_device(context,
                {sum, x, addend, filters.s, filters.u, filters.generated, rows.reach, rows.halo});
  expect_conv(x, filters, shape, rows);
  expect_like(sum, x, "output of the convolution");
  expect_like(addend, x, "what is added to a convolution");
  CHECK(addend.data() != sum.data() && rows.part == ConvPart::all,
        "a convolution of all rows is added to what stays as it is");
  const Recorded recorded(context, "conv_forward_add");
  context.backend.conv_forward_add(sum, x, addend, filters, shape, rows);
}

namespace {
void expect_conv_inputs(const Context& context, const ConvGradients& g, const Tensor& dy,
                        const Tensor& x, const ConvFilters& filters, const ConvShape& shape,
                        const ConvRows& rows) {
  expect_device(context, {g.dx, g.dgenerated, g.dhalo, dy, x, filters.s, filters.u,
                          filters.generated, rows.reach, rows.halo});
  expect_conv(x, filters, shape, rows);
  expect_like(g.dx, x, "dx of the convolution");
  expect_like(dy, x, "dy of the convolution");
  if (!filters.generated.empty()) expect_like(g.dgenerated, filters.generated, "dgenerated");
  CHECK(g.dhalo.empty() == rows.halo.empty(), "halo and dhalo go together");
  if (!rows.halo.empty()) expect_like(g.dhalo, rows.halo, "dhalo");
}

void expect_conv_weights(const Context& context, const ConvGradients& g, const Tensor& dy,
                         const Tensor& x, const ConvFilters& filters, const ConvShape& shape,
                         const ConvRows& rows) {
  expect_device(context, {g.ds, g.du, dy, x, filters.generated, rows.reach, rows.halo});
  expect_conv(x, filters, shape, rows);
  expect_like(dy, x, "dy of the convolution");
  expect_shape(g.ds, shape.width, x.cols(), "ds");
  if (shape.kind == FilterKind::lowrank) {
    expect_shape(g.du, shape.filter_rank * shape.width, x.cols(), "du");
  }
}
}  // namespace

void conv_backward_input(const Context& context, Tensor dx, Tensor dgenerated, Tensor dhalo,
                         Tensor dy, Tensor x, const ConvFilters& filters, const ConvShape& shape,
                         const ConvRows& rows) {
  expect_conv_inputs(context, {dx, dgenerated, dhalo, {}, {}}, dy, x, filters, shape, rows);
  const Recorded recorded(context, "conv_backward_input");
  context.backend.conv_backward_input(dx, dgenerated, dhalo, dy, x, filters, shape, rows);
}

void conv_backward_weight(const Context& context, Tensor ds, Tensor du, Tensor dy, Tensor x,
                          const ConvFilters& filters, const ConvShape& shape,
                          const ConvRows& rows) {
  expect_conv_weights(context, {{}, {}, {}, ds, du}, dy, x, filters, shape, rows);
  const Recorded recorded(context, "conv_backward_weight");
  context.backend.conv_backward_weight(ds, du, dy, x, filters, shape, rows);
}

void conv_backward(const Context& context, const ConvGradients& gradients, Tensor dy, Tensor x,
                   const ConvFilters& filters, const ConvShape& shape, const ConvRows& rows) {
  expect_conv_inputs(context, gradients, dy, x, filters, shape, rows);
  expect_conv_weights(context, gradients, dy, x, filters, shape, rows);
  const Recorded recorded(context, "conv_backward");
  context.backend.conv_backward(gradients, dy, x, filters, shape, rows);
}

namespace {
void expect_attention_input(const Context& context, const AttentionInput& in,
                            const HeadsShape& shape) {
  expect_device(context, {in.y, in.x, in.filters.s, in.filters.u, in.filters.generated,
                          in.convolved, in.rstd, in.norm_weight, shape.positions});
  CHECK(shape.rows.halo.empty() && shape.rows.part == ConvPart::all,
        "attention's inputs are convolved over whole sequences, without a halo");
  CHECK(shape.head_width > 0 && shape.head_width % 2 == 0 && in.x.cols() % shape.head_width == 0,
        "heads of ", shape.head_width, " in ", in.x.describe());
  expect_conv(in.x, in.filters, in.conv, shape.rows);
  expect_like(in.y, in.x, "an input of attention");
  expect_indices(shape.positions, in.x.rows(), "positions");
  if (in.norm_weight.empty()) return;
  CHECK(in.norm_weight.size() == shape.head_width, "the norm of heads of ", shape.head_width,
        " has a weight ", in.norm_weight.describe());
  expect_like(in.convolved, in.x, "what the norm of heads reads");
  expect_shape(in.rstd, in.x.rows(), in.x.cols() / shape.head_width, "rstd of heads");
}
}  // namespace

void attention_inputs_forward(const Context& context, std::span<const AttentionInput> inputs,
                              const HeadsShape& shape) {
  for (const AttentionInput& in : inputs) expect_attention_input(context, in, shape);
  const Recorded recorded(context, "attention_inputs_forward");
  context.backend.attention_inputs_forward(inputs, shape);
}

void attention_inputs_backward(const Context& context,
                               std::span<const AttentionInputGradients> gradients,
                               std::span<const AttentionInput> inputs, const HeadsShape& shape) {
  CHECK(gradients.size() == inputs.size(), gradients.size(), " gradients of ", inputs.size(),
        " inputs of attention");
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const AttentionInput& in = inputs[i];
    const AttentionInputGradients& g = gradients[i];
    expect_attention_input(context, in, shape);
    expect_device(context, {g.dconvolved, g.dnorm_weight});
    expect_conv_inputs(context, g.conv, g.dy, in.x, in.filters, in.conv, shape.rows);
    expect_conv_weights(context, g.conv, g.dy, in.x, in.filters, in.conv, shape.rows);
    if (in.norm_weight.empty()) continue;
    expect_like(g.dconvolved, in.x, "gradient of what the norm of heads reads");
    expect_shape(g.dnorm_weight, 1, shape.head_width, "gradient of the norm of heads");
  }
  const Recorded recorded(context, "attention_inputs_backward");
  context.backend.attention_inputs_backward(gradients, inputs, shape);
}

namespace {
void expect_conv_swiglu(const Context& context, const ConvolvedInput& gate,
                        const ConvolvedInput& up, const ConvRows& rows) {
  for (const ConvolvedInput* in : {&gate, &up}) {
    expect_device(context, {in->y, in->x, in->filters.s, in->filters.u, in->filters.generated,
                            rows.reach, rows.halo});
    expect_conv(in->x, in->filters, in->conv, rows);
    const Backend& backend = context.backend;
    if (in->y.empty() && !backend.keeps_gate_and_up(in->conv, in->x.cols(), in->x.dtype()))
      continue;
    expect_like(in->y, in->x, "output of the convolution");
  }
  expect_like(up.x, gate.x, "up");
}
}  // namespace

void conv_swiglu_forward(const Context& context, Tensor y, const ConvolvedInput& gate,
                         const ConvolvedInput& up, const ConvRows& rows) {
  expect_conv_swiglu(context, gate, up, rows);
  expect_device(context, {y});
  expect_like(y, gate.x, "output of swiglu");
  const Recorded recorded(context, "conv_swiglu_forward");
  context.backend.conv_swiglu_forward(y, gate, up, rows);
}

void conv_swiglu_backward(const Context& context, Tensor dgate, Tensor dup, Tensor dy,
                          const ConvolvedInput& gate, const ConvolvedInput& up,
                          const ConvRows& rows) {
  expect_conv_swiglu(context, gate, up, rows);
  expect_device(context, {dgate, dup, dy});
  expect_like(dgate, gate.x, "dgate");
  expect_like(dup, gate.x, "dup");
  expect_like(dy, gate.x, "dy of swiglu");
  const Recorded recorded(context, "conv_swiglu_backward");
  context.backend.conv_swiglu_backward(dgate, dup, dy, gate, up, rows);
}

}  // namespace convoy::ops
