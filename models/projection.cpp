#include "models/projection.h"

#include <cmath>

#include "core/conv_shape.h"

namespace convoy {
namespace {

bool convolves(const ConvShape& shape) { return shape.kind != FilterKind::none; }

std::string name_of_site(const std::string& prefix, ConvSite site) {
  return prefix + kConvSiteNames[static_cast<std::size_t>(site)];
}

}  // namespace

Projection::Projection(ParameterStore& store, const ModelConfig& model, const std::string& prefix,
                       const std::vector<ProjectionOutput>& outputs)
    : inputs_(model.inputs_at(outputs.front().site)) {
  CHECK(outputs.size() <= kMaxOutputs, outputs.size(), " outputs of one projection");
  for (const auto& output : outputs) {
    const std::int64_t channels = model.channels_at(output.site);
    const ConvShape conv = model.conv.shape_at(output.site);
    outputs_.push_back({channels, columns_, conv, 0, generated_columns(conv, channels)});
    outputs_.back().weight =
        &store.declare(name_of_site(prefix, output.site) + ".weight", {channels, inputs_},
                       Initializer::normal(output.init_std), WeightDecay::yes,
                       columns_ == 0 ? Adjacent::no : Adjacent::yes);
    columns_ += channels;
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    declare_generator(store, model, prefix, outputs[i].site, outputs_[i]);
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    declare_taps(store, model, prefix, outputs[i].site, outputs_[i]);
  }
}

void Projection::declare_generator(ParameterStore& store, const ModelConfig& model,
                                   const std::string& prefix, ConvSite site, Output& output) {
  if (output.generated_columns == 0) return;
  const std::string name = name_of_site(prefix, site) + ".conv.";
  if (output.conv.kind == FilterKind::lowrank) {
    store.declare(name + "A", {output.conv.filter_rank, inputs_},
                  Initializer::uniform(1 / std::sqrt(static_cast<double>(inputs_))),
                  WeightDecay::no, Adjacent::yes);
  } else {
    store.declare(name + "G", {output.channels / model.conv.head_size, output.conv.width, inputs_},
                  Initializer::constant(0), WeightDecay::no, Adjacent::yes);
  }
  output.generated_column = columns_;
  columns_ += output.generated_columns;
}

void Projection::declare_taps(ParameterStore& store, const ModelConfig& model,
                              const std::string& prefix, ConvSite site, Output& output) {
  if (!convolves(output.conv)) return;
  const std::string name = name_of_site(prefix, site) + ".conv.";
  if (output.conv.kind == FilterKind::lowrank) {
    output.u =
        &store.declare(name + "U", {output.conv.filter_rank, output.conv.width, output.channels},
                       Initializer::constant(0), WeightDecay::no);
  }
  const auto uniform = Initializer::uniform(1 / std::sqrt(static_cast<double>(output.conv.width)));
  const auto identity =
      model.conv.residual ? Initializer::constant(0) : Initializer::first_row_one();
  output.s =
      &store.declare(name + "s", {output.conv.width, output.channels},
                     model.conv.init == ConvInit::identity ? identity : uniform, WeightDecay::no);
}

Tensor Projection::joined_weight() const {
  return ParameterStore::joined(outputs_.front().weight->value, columns_, inputs_);
}

Tensor Projection::joined_gradient() const {
  return ParameterStore::joined(outputs_.front().weight->gradient, columns_, inputs_);
}

Tensor Projection::convolved(const Output& output, const Tensor& joined) const {
  return joined.column_range(output.column, output.channels);
}

ConvFilters Projection::filters(const Output& output, const Tensor& joined) const {
  ConvFilters filters;
  filters.s = output.s->value;
  if (output.u != nullptr) filters.u = output.u->value;
  if (output.generated_columns > 0) {
    filters.generated = joined.column_range(output.generated_column, output.generated_columns);
  }
  return filters;
}

ConvRows Projection::rows_of(const BatchView& batch) {
  return {batch.sequences, batch.length, batch.reach, {}};
}

void Projection::forward(const Context& context, const BatchView& batch, Tensor x,
                         Saved& saved) const {
  saved.input = x;
  saved.joined = context.take({x.rows(), columns_});
  ops::matmul(context, saved.joined, x, Transpose::no, joined_weight(), Transpose::yes);
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    const Tensor columns = convolved(output, saved.joined);
    saved.outputs[i] = columns;
    if (!convolves(output.conv)) continue;
    saved.outputs[i] = context.take({x.rows(), output.channels});
    ops::conv_forward(context, saved.outputs[i], columns, filters(output, saved.joined),
                      output.conv, rows_of(batch));
  }
}

void Projection::prepare_backward(const Context& context, Saved& saved) const {
  saved.djoined = context.take({saved.input.rows(), columns_});
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    saved.doutputs[i] = convolves(output.conv) ? context.take({saved.input.rows(), output.channels})
                                               : convolved(output, saved.djoined);
  }
}

void Projection::prepare_backward(const Context& context, Saved& saved, Tensor dy) const {
  CHECK(outputs_.size() == 1, outputs_.size(), " outputs share one gradient");
  saved.doutputs[0] = dy;
  saved.djoined = convolves(outputs_[0].conv) ? context.take({saved.input.rows(), columns_}) : dy;
}

// Where both parts run together, so do those of the convolutions.
void Projection::backward_input(const Context& context, const BatchView& batch, Tensor dx,
                                Saved& saved) const {
  saved.taps_done = context.parts == BackwardParts::together;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    if (!convolves(output.conv)) continue;
    ConvGradients g = tap_gradients(output);
    g.dx = convolved(output, saved.djoined);
    if (output.generated_columns > 0) {
      g.dgenerated = saved.djoined.column_range(output.generated_column, output.generated_columns);
    }
    const Tensor x = convolved(output, saved.joined);
    if (saved.taps_done) {
      ops::conv_backward(context, g, saved.doutputs[i], x, filters(output, saved.joined),
                         output.conv, rows_of(batch));
    } else {
      ops::conv_backward_input(context, g.dx, g.dgenerated, {}, saved.doutputs[i], x,
                               filters(output, saved.joined), output.conv, rows_of(batch));
    }
  }
  ops::matmul(context, dx, saved.djoined, Transpose::no, joined_weight(), Transpose::no);
}

ConvGradients Projection::tap_gradients(const Output& output) const {
  ConvGradients gradients;
  gradients.ds = output.s->gradient;
  if (output.u != nullptr) gradients.du = output.u->gradient;
  return gradients;
}

void Projection::backward_weight(const Context& context, const BatchView& batch,
                                 Saved& saved) const {
  ops::matmul(context, joined_gradient(), saved.djoined, Transpose::yes, saved.input, Transpose::no,
              Accumulate::yes);
  if (saved.taps_done) return;
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    if (!convolves(output.conv)) continue;
    const ConvGradients g = tap_gradients(output);
    ops::conv_backward_weight(context, g.ds, g.du, saved.doutputs[i],
                              convolved(output, saved.joined), filters(output, saved.joined),
                              output.conv, rows_of(batch));
  }
}

}  // namespace convoy
