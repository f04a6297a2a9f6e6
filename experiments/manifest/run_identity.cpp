#include "experiments/manifest/run_identity.h"

#include "core/error.h"
#include "core/sha256.h"

namespace convoy {
namespace {

constexpr std::size_t kHashDigits = 8;

bool changes_numbers(const std::string& key) {
  for (const char* section : {"checkpoint.", "log.", "parallel."}) {
    if (key.starts_with(section)) return false;
  }
  return key != "train.cuda_graph";
}

// One way to say how long the run and its warm-up are.
RunConfig in_steps(RunConfig config) {
  const std::int64_t steps = total_steps(config), warmup = warmup_steps(config);
  config.train.steps = steps;
  config.train.tokens = 0;
  config.train.flops = 0;
  config.lr_schedule.warmup_steps = warmup;
  config.lr_schedule.warmup_tokens = 0;
  config.lr_schedule.warmup_fraction = 0;
  return config;
}

// "lowrank_r16_w4_qkv", "plain".
std::string conv_slug(const ConvConfig& conv) {
  static const char* const kKinds[] = {"plain", "static", "headwise", "lowrank"};  // by FilterKind
  std::string slug = kKinds[static_cast<std::size_t>(conv.kind)];
  if (conv.kind == FilterKind::none) return slug;
  if (conv.kind == FilterKind::lowrank) slug += concat("_r", conv.rank);
  if (conv.kind == FilterKind::headwise) slug += concat("_h", conv.head_size);
  slug += concat("_w", conv.width, "_");
  if (conv.on.size() == kConvSiteNames.size()) return slug + "all";
  for (const ConvSite site : conv.on) slug += kConvSiteNames[static_cast<std::size_t>(site)];
  return slug;
}

}  // namespace

std::string identity_text(const RunConfig& config) {
  const auto defaults = settings_of(RunConfig{});
  std::string text;
  for (const auto& [key, value] : settings_of(in_steps(config))) {
    if (changes_numbers(key) && defaults.at(key) != value) text += concat(key, " = ", value, "\n");
  }
  return text;
}

std::string config_hash(const RunConfig& config) { return sha256_of(identity_text(config)); }

std::string run_id(const RunConfig& config) {
  return concat("d", config.model.d_model, "_l", config.model.n_layers, "_",
                conv_slug(config.model.conv), "_", total_steps(config), "steps_seed",
                config.train.seed, "_", config_hash(config).substr(0, kHashDigits));
}

}  // namespace convoy
