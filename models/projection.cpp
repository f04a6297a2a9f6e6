#include "models/projection.h"

#include <cmath>

#include "core/conv_shape.h"

namespace convoy {
namespace {

constexpr double kNormalFilterStd = 0.1;

bool convolves(const ConvShape& shape) { return shape.kind != FilterKind::none; }

// Of what generates filters, U and G.
Initializer generator_start(const ModelConfig& model) {
  return model.conv.init == ConvInit::normal ? Initializer::normal(kNormalFilterStd)
                                             : Initializer::constant(0);
}

// Of the static taps, s.
Initializer tap_start(const ModelConfig& model) {
  switch (model.conv.init) {
    case ConvInit::uniform:
      return Initializer::uniform(1 / std::sqrt(static_cast<double>(model.conv.width)));
    case ConvInit::identity:
      return model.conv.residual ? Initializer::constant(0) : Initializer::first_row_one();
    case ConvInit::normal: return Initializer::normal(kNormalFilterStd);
  }
  return Initializer::constant(0);
}

std::string name_of_site(const std::string& prefix, ConvSite site) {
  return prefix + kConvSiteNames[static_cast<std::size_t>(site)];
}

// In what parts to convolve so that a halo travels meanwhile.
std::vector<ConvPart> forward_parts(const HaloExchange& halo, Overlap overlap) {
  if (halo.empty() || overlap == Overlap::no) return {ConvPart::all};
  return {ConvPart::interior, ConvPart::boundary};
}

std::vector<ConvPart> backward_parts(const HaloExchange& halo, Overlap overlap) {
  if (halo.empty() || overlap == Overlap::no) return {ConvPart::all};
  return {ConvPart::boundary, ConvPart::interior};
}

}  // namespace

Projection::Projection(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
                       SplitBy split, const std::string& prefix,
                       const std::vector<ProjectionOutput>& outputs)
    : sharding_(sharding),
      shards_(sharding),
      split_(split),
      inputs_(model.inputs_at(outputs.front().site)),
      width_(model.conv.width) {
  CHECK(outputs.size() <= kMaxOutputs, outputs.size(), " outputs of one projection");
  const std::int64_t all_inputs = inputs_;
  if (split == SplitBy::inputs) inputs_ /= sharding.tp.size();
  for (const auto& output : outputs) {
    const std::int64_t all_channels = model.channels_at(output.site);
    const std::int64_t channels =
        split == SplitBy::outputs ? all_channels / sharding.tp.size() : all_channels;
    const ConvShape conv = model.conv.shape_at(output.site);
    outputs_.push_back(
        {channels, columns_, conv, 0, generated_columns(conv, channels), halo_columns_});
    outputs_.back().weight = &store.declare(name_of_site(prefix, output.site) + ".weight",
                                            split_matrix({all_channels, all_inputs}),
                                            Initializer::normal(output.init_std), WeightDecay::yes,
                                            columns_ == 0 ? Adjacent::no : Adjacent::yes);
    columns_ += channels;
    if (convolves(conv)) halo_columns_ += channels;
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    declare_generator(store, model, prefix, outputs[i].site, outputs_[i]);
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    declare_taps(store, model, prefix, outputs[i].site, outputs_[i]);
  }
}

Placement Projection::split_matrix(std::vector<std::int64_t> shape) const {
  const int last = static_cast<int>(shape.size()) - 1;
  return {.shape = std::move(shape),
          .split = Split{split_ == SplitBy::outputs ? 0 : last, MeshAxis::tp}};
}

Placement Projection::split_channels(std::vector<std::int64_t> shape) const {
  const int last = static_cast<int>(shape.size()) - 1;
  Placement placement{.shape = std::move(shape)};
  if (split_ == SplitBy::outputs) {
    placement.split = Split{last, MeshAxis::tp};
  } else {
    placement.gradient = sharding_.gradient_of_own_rows();
  }
  return placement;
}

void Projection::declare_generator(ParameterStore& store, const ModelConfig& model,
                                   const std::string& prefix, ConvSite site, Output& output) {
  if (output.generated_columns == 0) return;
  const std::string name = name_of_site(prefix, site) + ".conv.";
  const std::int64_t inputs = model.inputs_at(site);
  if (output.conv.kind == FilterKind::lowrank) {
    Placement placement = split_matrix({output.conv.filter_rank, inputs});
    if (split_ == SplitBy::outputs) {  // z is whole on every rank, dz a share
      placement.split.reset();
      placement.gradient = LocalGradient::partial_over_tp;
    }
    store.declare(name + "A", placement,
                  Initializer::uniform(1 / std::sqrt(static_cast<double>(inputs))), WeightDecay::no,
                  Adjacent::yes);
  } else {
    const std::int64_t groups = model.channels_at(site) / model.conv.head_size;
    store.declare(name + "G", split_matrix({groups, output.conv.width, inputs}),
                  generator_start(model), WeightDecay::no, Adjacent::yes);
  }
  output.generated_column = columns_;
  columns_ += output.generated_columns;
}

void Projection::declare_taps(ParameterStore& store, const ModelConfig& model,
                              const std::string& prefix, ConvSite site, Output& output) {
  if (!convolves(output.conv)) return;
  const std::string name = name_of_site(prefix, site) + ".conv.";
  const std::int64_t channels = model.channels_at(site);
  if (output.conv.kind == FilterKind::lowrank) {
    output.u = &store.declare(
        name + "U", split_channels({output.conv.filter_rank, output.conv.width, channels}),
        generator_start(model), WeightDecay::no);
  }
  output.s = &store.declare(name + "s", split_channels({output.conv.width, channels}),
                            tap_start(model), WeightDecay::no);
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

std::vector<Tensor> Projection::convolved_parts(const Tensor& joined) const {
  std::vector<Tensor> parts;
  for (const Output& output : outputs_) {
    if (convolves(output.conv)) parts.push_back(convolved(output, joined));
  }
  return parts;
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

std::int64_t Projection::conv_rows(const BatchView& batch) const {
  return split_ == SplitBy::outputs ? batch.rows() : batch.own_rows();
}

ConvRows Projection::rows_of(const Output& output, const BatchView& batch, const Saved& saved,
                             ConvPart part) const {
  const std::int64_t segments = batch.sequences * sharding_.segments();
  ConvRows rows{segments,
                conv_rows(batch) / segments,
                split_ == SplitBy::outputs ? batch.reach : batch.own_reach,
                {},
                part};
  if (!saved.halo.empty()) {
    rows.halo = saved.halo.column_range(output.halo_column, output.channels);
  }
  return rows;
}

HaloExchange Projection::halo_exchange(const Context& context, const BatchView& batch) const {
  const std::int64_t length = batch.length * sharding_.cp.size();
  const std::int64_t before = halo_columns_ > 0 ? width_ - 1 : 0;
  if (split_ == SplitBy::outputs) {
    return {context, sharding_.cp, sharding_.all_rows(length), batch.sequences, before};
  }
  return {context, sharding_.row_owners(), sharding_.own_rows(length), batch.sequences, before};
}

void Projection::forward(const Context& context, const BatchView& batch, Tensor x,
                         Saved& saved) const {
  if (split_ == SplitBy::outputs) {
    saved.input = shards_.complete(context, batch, x);
    saved.joined = context.take({batch.rows(), columns_});
    ops::matmul(context, saved.joined, saved.input, Transpose::no, joined_weight(), Transpose::yes);
  } else {
    saved.input = x;
    saved.joined = context.take({batch.own_rows(), columns_});
    const ArenaScope scope(context.arena);
    const Tensor share = shards_.share_for(context, batch, saved.joined);
    ops::matmul(context, share, x, Transpose::no, joined_weight(), Transpose::yes);
    shards_.sum_into(context, batch, saved.joined, share);
  }
  convolve(context, batch, saved);
}

void Projection::convolve(const Context& context, const BatchView& batch, Saved& saved) const {
  HaloExchange exchange = halo_exchange(context, batch);
  if (!exchange.empty()) saved.halo = context.take({exchange.halo_rows(), halo_columns_});
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    saved.outputs[i] = convolves(outputs_[i].conv)
                           ? context.take({saved.joined.rows(), outputs_[i].channels})
                           : convolved(outputs_[i], saved.joined);
  }
  const ArenaScope scope(context.arena);
  exchange.start(saved.halo, convolved_parts(saved.joined));
  for (const ConvPart part : forward_parts(exchange, sharding_.overlap)) {
    if (part != ConvPart::interior) exchange.finish(saved.halo);
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const Output& output = outputs_[i];
      if (!convolves(output.conv)) continue;
      ops::conv_forward(context, saved.outputs[i], convolved(output, saved.joined),
                        filters(output, saved.joined), output.conv,
                        rows_of(output, batch, saved, part));
    }
  }
}

void Projection::prepare_backward(const Context& context, Saved& saved) const {
  saved.djoined = context.take({saved.joined.rows(), columns_});
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    saved.doutputs[i] = convolves(output.conv)
                            ? context.take({saved.joined.rows(), output.channels})
                            : convolved(output, saved.djoined);
  }
}

void Projection::backward_convolve(const Context& context, const BatchView& batch,
                                   Saved& saved) const {
  const ArenaScope scope(context.arena);
  HaloExchange exchange = halo_exchange(context, batch);
  Tensor dhalo;
  if (!exchange.empty()) dhalo = context.take({exchange.halo_rows(), halo_columns_});
  for (const ConvPart part : backward_parts(exchange, sharding_.overlap)) {
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const Output& output = outputs_[i];
      if (!convolves(output.conv)) continue;
      Tensor dgenerated, dhalo_columns;
      if (output.generated_columns > 0) {
        dgenerated = saved.djoined.column_range(output.generated_column, output.generated_columns);
      }
      if (!dhalo.empty()) dhalo_columns = dhalo.column_range(output.halo_column, output.channels);
      ops::conv_backward_input(context, convolved(output, saved.djoined), dgenerated, dhalo_columns,
                               saved.doutputs[i], convolved(output, saved.joined),
                               filters(output, saved.joined), output.conv,
                               rows_of(output, batch, saved, part));
    }
    if (part != ConvPart::interior) exchange.start_return(dhalo);
  }
  exchange.finish_return(dhalo, convolved_parts(saved.djoined));
}

void Projection::backward_input(const Context& context, const BatchView& batch, Tensor dx,
                                Saved& saved) const {
  backward_convolve(context, batch, saved);
  if (split_ == SplitBy::inputs) {
    saved.djoined_rows = shards_.complete(context, batch, saved.djoined);
    ops::matmul(context, dx, saved.djoined_rows, Transpose::no, joined_weight(), Transpose::no);
    return;
  }
  saved.djoined_rows = saved.djoined;
  const ArenaScope scope(context.arena);
  const Tensor share = shards_.share_for(context, batch, dx);
  ops::matmul(context, share, saved.djoined, Transpose::no, joined_weight(), Transpose::no);
  shards_.sum_into(context, batch, dx, share);
}

void Projection::backward_weight(const Context& context, const BatchView& batch,
                                 Saved& saved) const {
  ops::matmul(context, joined_gradient(), saved.djoined_rows, Transpose::yes, saved.input,
              Transpose::no, Accumulate::yes);
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    const Output& output = outputs_[i];
    if (!convolves(output.conv)) continue;
    ops::conv_backward_weight(
        context, output.s->gradient, output.u != nullptr ? output.u->gradient : Tensor{},
        saved.doutputs[i], convolved(output, saved.joined), filters(output, saved.joined),
        output.conv, rows_of(output, batch, saved, ConvPart::all));
  }
}

}  // namespace convoy
