#include "models/model_config.h"

#include <algorithm>

#include "core/conv_shape.h"
#include "core/error.h"

namespace convoy {

std::vector<ConvSite> default_conv_sites() { return {ConvSite::q, ConvSite::k, ConvSite::v}; }

bool ConvConfig::applies_to(ConvSite site) const {
  return kind != FilterKind::none && std::find(on.begin(), on.end(), site) != on.end();
}

ConvShape ConvConfig::shape_at(ConvSite site) const {
  return {applies_to(site) ? kind : FilterKind::none, width, rank, head_size, residual};
}

std::int64_t ModelConfig::channels_at(ConvSite site) const {
  switch (site) {
    case ConvSite::k:
    case ConvSite::v: return kv_width();
    case ConvSite::gate:
    case ConvSite::up: return d_ff;
    case ConvSite::q:
    case ConvSite::o:
    case ConvSite::down: return d_model;
  }
  return 0;
}

std::int64_t ModelConfig::inputs_at(ConvSite site) const {
  return site == ConvSite::down ? d_ff : d_model;
}

std::string ModelConfig::label() const {
  if (conv.kind == FilterKind::none) return "transformer";
  std::string sites;
  for (const ConvSite site : conv.on) {
    sites += (sites.empty() ? "" : ",") + std::string(kConvSiteNames[static_cast<int>(site)]);
  }
  std::string text = "static";
  if (conv.kind == FilterKind::headwise) text = concat("headwise H", conv.head_size);
  if (conv.kind == FilterKind::lowrank) text = concat("lowrank R", conv.rank);
  text += concat(" W", conv.width, " on ", sites);
  if (!conv.residual) text += ", no residual";
  if (conv.init == ConvInit::identity) text += ", identity init";
  if (conv.init == ConvInit::normal) text += ", normal init";
  return text;
}

namespace {

class ProblemList {
 public:
  template <class... Parts>
  void require(bool condition, const Parts&... parts) {
    if (!condition) problems_.push_back(concat(parts...));
  }
  std::vector<std::string> take() { return std::move(problems_); }

 private:
  std::vector<std::string> problems_;
};

void check_conv(const ModelConfig& c, ProblemList& problems) {
  const ConvConfig& conv = c.conv;
  if (conv.kind == FilterKind::none) return;
  problems.require(conv.width >= 1 && conv.width <= kMaxConvWidth, "model.conv.width is ",
                   conv.width, "; use 1 to ", kMaxConvWidth, " taps");
  problems.require(!conv.on.empty(),
                   "model.conv.on is empty; list some of q, k, v, o, gate, up, "
                   "down, or set model.conv.kind = \"none\"");
  for (const ConvSite site : conv.on) {
    const bool in_mlp = site == ConvSite::gate || site == ConvSite::up || site == ConvSite::down;
    problems.require(!in_mlp || c.d_ff != 0, "model.conv.on has ",
                     kConvSiteNames[static_cast<int>(site)],
                     ", and with model.d_ff = 0 there is no MLP; leave it out");
  }
  if (conv.kind == FilterKind::lowrank) {
    problems.require(conv.rank >= 1, "model.conv.rank is ", conv.rank, "; use 1 or more");
  }
  if (conv.kind != FilterKind::headwise) return;
  for (const ConvSite site : conv.on) {
    const std::int64_t channels = c.channels_at(site);
    problems.require(conv.head_size >= 1 && channels % conv.head_size == 0, "model.conv.head_size ",
                     conv.head_size, " does not divide the ", channels, " channels of ",
                     kConvSiteNames[static_cast<int>(site)], "; choose a divisor of ", channels);
  }
}

}  // namespace

std::vector<std::string> problems_of(const ModelConfig& c) {
  ProblemList problems;
  const auto positive = [&](std::int64_t value, const char* name) {
    problems.require(value >= 1, "model.", name, " is ", value, "; use 1 or more");
    return value >= 1;
  };
  positive(c.n_layers, "n_layers");
  problems.require(c.d_ff >= 0, "model.d_ff is ", c.d_ff, "; use 1 or more, or 0 for no MLP");
  positive(c.seq_len, "seq_len");
  problems.require(c.vocab >= 2, "model.vocab is ", c.vocab, "; use 2 or more");
  problems.require(c.n_kv_heads >= 0, "model.n_kv_heads is ", c.n_kv_heads, "; use 0 or more");
  problems.require(c.norm_eps > 0, "model.norm_eps is ", c.norm_eps, "; use a positive number");
  problems.require(c.rope_theta > 0, "model.rope_theta is ", c.rope_theta,
                   "; use a positive number");
  if (positive(c.d_model, "d_model") && positive(c.n_heads, "n_heads")) {
    problems.require(c.d_model % c.n_heads == 0, "model.d_model ", c.d_model,
                     " is not divisible by model.n_heads ", c.n_heads,
                     "; choose n_heads that divides it");
    problems.require(c.n_kv_heads <= 0 || c.n_heads % c.n_kv_heads == 0, "model.n_heads ",
                     c.n_heads, " is not divisible by model.n_kv_heads ", c.n_kv_heads,
                     "; choose n_kv_heads that divides it");
    problems.require(c.d_model % c.n_heads != 0 || c.head_width() % 2 == 0,
                     "the head width d_model / n_heads = ", c.d_model / c.n_heads,
                     " is odd, and rotary positions turn pairs of channels; choose n_heads so "
                     "that it is even");
    if (c.d_model % c.n_heads == 0) check_conv(c, problems);
  }
  return problems.take();
}

}  // namespace convoy
