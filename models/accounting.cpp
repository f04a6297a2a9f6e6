#include "models/accounting.h"

#include "core/conv_shape.h"
#include "core/error.h"

namespace convoy {
namespace {

constexpr std::array kSites = {ConvSite::q,    ConvSite::k,  ConvSite::v,   ConvSite::o,
                               ConvSite::gate, ConvSite::up, ConvSite::down};

// Weights of all linears of one block, without the convolutions.
std::int64_t linear_weights(const ModelConfig& model) {
  std::int64_t total = 0;
  for (const ConvSite site : kSites) total += model.channels_at(site) * model.inputs_at(site);
  return total;
}

std::int64_t conv_parameters(const ModelConfig& model, ConvSite site) {
  const ConvShape shape = model.conv.shape_at(site);
  if (shape.kind == FilterKind::none) return 0;
  const std::int64_t channels = model.channels_at(site);
  std::int64_t total = generated_columns(shape, channels) * model.inputs_at(site);  // A or G
  if (shape.kind == FilterKind::lowrank) total += shape.filter_rank * shape.width * channels;
  return total + shape.width * channels;  // s
}

// Forward FLOPs of one convolution and its generator, per token.
std::int64_t conv_flops(const ModelConfig& model, ConvSite site) {
  const ConvShape shape = model.conv.shape_at(site);
  if (shape.kind == FilterKind::none) return 0;
  const std::int64_t channels = model.channels_at(site);
  std::int64_t multiply_adds = generated_columns(shape, channels) * model.inputs_at(site);
  if (shape.kind == FilterKind::lowrank) {
    multiply_adds += shape.filter_rank * shape.width * channels;
  }
  return 2 * (multiply_adds + shape.width * channels);
}

}  // namespace

ParameterCounts count_parameters(const ModelConfig& model) {
  const std::int64_t norms = model.d_ff > 0 ? 2 : 1;
  std::int64_t block = linear_weights(model) + norms * model.d_model;
  for (const ConvSite site : kSites) block += conv_parameters(model, site);
  if (model.qk_norm) block += 2 * model.head_width();
  const std::int64_t table = model.vocab * model.d_model;
  const std::int64_t total =
      model.n_layers * block + model.d_model + table * (model.tie_embeddings ? 1 : 2);
  return {total, total, total - table};
}

FlopParts training_flops_per_token(const ModelConfig& model, double labelled_share) {
  constexpr double kTrainingOverForward = 3;
  std::int64_t conv = 0;
  for (const ConvSite site : kSites) conv += conv_flops(model, site);
  const std::int64_t width = model.n_heads * model.head_width();
  FlopParts parts;
  const auto of = [&](std::int64_t flops) {
    return kTrainingOverForward * static_cast<double>(flops);
  };
  parts.linear = of(2 * model.n_layers * linear_weights(model));
  parts.attention = of(2 * model.n_layers * width * (model.seq_len + 1));
  parts.head = of(2 * model.vocab * model.d_model) * labelled_share;
  parts.conv = of(model.n_layers * conv);
  return parts;
}

double training_flops_per_token(const ModelConfig& model, const std::string& convention,
                                double labelled_share) {
  if (convention == "parts") return training_flops_per_token(model, labelled_share).total();
  const auto active = static_cast<double>(count_parameters(model).active);
  if (convention == "6n") return 6 * active;
  const auto lookup = model.tie_embeddings ? 0.0 : static_cast<double>(model.vocab * model.d_model);
  const auto pairs = static_cast<double>(model.n_layers * model.d_model * model.seq_len);
  if (convention == "causal") return 6 * (active - lookup) + 6 * pairs;
  if (convention == "full") return 6 * (active - lookup) + 12 * pairs;
  throw Error(
      concat("FLOP convention '", convention, "' is not known; use parts, 6n, causal or full"));
}

}  // namespace convoy
