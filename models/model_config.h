// What a model is: the numbers of the [model] section of a configuration.
// Letters used in models/: B sequences, T positions, D d_model, Q query heads, K head width,
// F d_ff, V vocabulary, R filter rank, W taps, H channels that share a head-wise filter.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/backend.h"

namespace convoy {

// The linears whose outputs may be convolved.
enum class ConvSite : std::uint8_t { q, k, v, o, gate, up, down };
constexpr std::array<const char*, 7> kConvSiteNames = {"q", "k", "v", "o", "gate", "up", "down"};

// How filters start. normal, for tests: U, G and s from N(0, 0.1), because at the others' U = G = 0
// the gradients of the generator vanish.
enum class ConvInit : std::uint8_t { uniform, identity, normal };

std::vector<ConvSite> default_conv_sites();  // q, k, v

struct ConvConfig {
  FilterKind kind = FilterKind::none;
  std::vector<ConvSite> on = default_conv_sites();
  int width = 4;
  std::int64_t rank = 16;
  std::int64_t head_size = 16;
  bool residual = true;
  ConvInit init = ConvInit::uniform;

  bool applies_to(ConvSite site) const;
  ConvShape shape_at(ConvSite site) const;  // kind none where it does not apply
};

struct ModelConfig {
  std::int64_t d_model = 128;
  std::int64_t n_layers = 4;
  std::int64_t n_heads = 4;
  std::int64_t n_kv_heads = 0;  // 0: as many as n_heads
  std::int64_t d_ff = 352;      // 0: blocks without an MLP
  std::int64_t vocab = 257;
  std::int64_t seq_len = 256;
  bool qk_norm = false;
  bool tie_embeddings = true;
  double rope_theta = 1e4;
  double norm_eps = 1e-5;
  double init_std = 0.02;
  bool depth_scaled_init = false;
  ConvConfig conv;

  std::int64_t kv_heads() const { return n_kv_heads == 0 ? n_heads : n_kv_heads; }
  std::int64_t head_width() const { return d_model / n_heads; }
  std::int64_t kv_width() const { return kv_heads() * head_width(); }
  std::int64_t channels_at(ConvSite site) const;  // of the linear's output
  std::int64_t inputs_at(ConvSite site) const;    // of the linear's input
  std::string label() const;                      // "transformer", "lowrank R16 W4 on q,k,v"
};

// Every reason why this model cannot be built, each with its numbers and a remedy; empty if none.
std::vector<std::string> problems_of(const ModelConfig& config);

}  // namespace convoy
