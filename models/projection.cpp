#include "models/projection.h"

#include <cmath>

#include "core/conv_shape.h"

namespace convoy {
namespace {

constexpr double kNormalFilterStd = 0.1;

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
    if (outputs_.back().convolves()) halo_columns_ += channels;
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
  if (!output.convolves()) return;
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
    if (output.convolves()) parts.push_back(convolved(output, joined));
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

}  // namespace convoy
