#include "launch/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/backend.h"
#include "core/random.h"

namespace convoy {

Sampler::Sampler(ModelInstance& instance)
    : instance_(instance),
      batch_(1, instance.model().config().seq_len),
      device_batch_(instance.backend(), 1, batch_.length) {
  CHECK(instance.sequences() == 1, "sampling runs one sequence, not ", instance.sequences());
}

// Logits after the last of the newest seq_len tokens; the rest of the window is padding that the
// causal mask hides.
std::vector<double> Sampler::next_logits(const std::vector<std::int32_t>& context) {
  const auto used = std::min<std::int64_t>(std::ssize(context), batch_.length);
  std::fill(batch_.tokens.begin(), batch_.tokens.end(), 0);
  std::fill(batch_.targets.begin(), batch_.targets.end(), -1);
  std::fill(batch_.document_start.begin(), batch_.document_start.end(), 0);
  std::copy(context.end() - used, context.end(), batch_.tokens.begin());
  const Context run = instance_.context();
  const ArenaScope scope(run.arena);
  const Tensor logits =
      instance_.model().next_token_logits(run, device_batch_.load(batch_), used - 1);
  std::vector<double> host(static_cast<std::size_t>(logits.size()));
  run.backend.convert(Tensor(host.data(), DType::f64, DeviceKind::cpu, {1, logits.size()}), logits);
  return host;
}

std::int32_t draw_token(const std::vector<double>& logits, double temperature, std::int64_t top_k,
                        double u) {
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](std::int32_t token) { return logits[static_cast<std::size_t>(token)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return logit(a) > logit(b); });
  if (temperature == 0) return order[0];
  if (top_k > 0 && top_k < std::ssize(order)) order.resize(static_cast<std::size_t>(top_k));
  std::vector<double> cumulative;
  double total = 0;
  for (const std::int32_t token : order) {
    total += std::exp((logit(token) - logit(order[0])) / temperature);
    cumulative.push_back(total);
  }
  const auto place = std::upper_bound(cumulative.begin(), cumulative.end(), u * total);
  return order[static_cast<std::size_t>(
      std::min<std::ptrdiff_t>(place - cumulative.begin(), std::ssize(order) - 1))];
}

void Sampler::run(std::vector<std::int32_t> prompt, std::int32_t end_of_text,
                  const SamplingOptions& options, const std::function<void(std::int32_t)>& emit) {
  CHECK(!prompt.empty(), "sampling needs a first token");
  const RandomStream random(options.seed, "sample");
  for (std::int64_t i = 0; i < options.tokens; ++i) {
    const std::int32_t token = draw_token(next_logits(prompt), options.temperature, options.top_k,
                                          random.uniform(static_cast<std::uint64_t>(i)));
    if (token == end_of_text) return;
    emit(token);
    prompt.push_back(token);
  }
}

}  // namespace convoy
