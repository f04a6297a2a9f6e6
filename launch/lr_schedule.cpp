#include "launch/lr_schedule.h"

#include <cmath>
#include <numbers>

namespace convoy {

double learning_rate(const RunConfig& config, std::int64_t step) {
  const auto& schedule = config.lr_schedule;
  const double peak = config.optimizer.lr;
  const std::int64_t steps = total_steps(config);
  const std::int64_t warmup = warmup_steps(config);
  if (step <= warmup) return peak * static_cast<double>(step) / static_cast<double>(warmup);
  if (schedule.kind == "cosine") {
    const double done = static_cast<double>(step - warmup) / static_cast<double>(steps - warmup);
    return schedule.min_lr +
           (peak - schedule.min_lr) * 0.5 * (1 + std::cos(std::numbers::pi * done));
  }
  const double cooldown = schedule.cooldown * static_cast<double>(steps);
  const double left = static_cast<double>(steps - step);
  if (left >= cooldown) return peak;
  const double done = 1 - left / cooldown;  // of the cooldown
  const double shape = schedule.shape == "linear" ? 1 - done : 1 - std::sqrt(done);
  return schedule.min_lr + (peak - schedule.min_lr) * shape;
}

}  // namespace convoy
