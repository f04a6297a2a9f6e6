#include "experiments/manifest/run_rules.h"

#include <cmath>

#include "core/error.h"
#include "experiments/manifest/expression.h"
#include "launch/lr_schedule.h"

namespace convoy {
namespace {

void check_warmup(const PlannedRun& run) {
  const std::int64_t warmup = run.config.lr_schedule.warmup_steps;
  const bool wsd = run.config.lr_schedule.kind == "wsd";
  const double free = wsd ? 1 - run.config.lr_schedule.cooldown : 1;
  if (static_cast<double>(warmup) < free * static_cast<double>(run.steps)) return;
  throw Error(concat("the warm-up takes ", warmup, " of ", run.steps, " steps",
                     wsd ? " and reaches into the cooldown" : "",
                     "; use a smaller rules.warmup_tokens, smaller batches or a larger budget"));
}

}  // namespace

void apply_rules(const RulesSection& rules, double planned_tokens, PlannedRun& run) {
  RunConfig& config = run.config;
  const auto batch = static_cast<double>(config.train.batch_tokens);
  const std::map<std::string, double> variables = {
      {"N", run.n},
      {"D", planned_tokens},
      {"d_model", static_cast<double>(config.model.d_model)},
      {"batch", batch}};
  const std::string& lr = rules.lr_of(run.arch);
  if (!lr.empty()) config.optimizer.lr = evaluate(lr, variables);
  config.optimizer.lr *= run.lr_multiplier;
  config.train.steps = std::llround(planned_tokens / batch);
  std::int64_t warmup = warmup_steps(config);
  if (!rules.warmup_tokens.empty()) {
    warmup = static_cast<std::int64_t>(evaluate(rules.warmup_tokens, variables) / batch);
  }
  config.lr_schedule.warmup_steps = warmup;
  config.lr_schedule.warmup_tokens = 0;
  config.lr_schedule.warmup_fraction = 0;
  config.train.steps = run.steps;
  check_warmup(run);
}

std::int64_t last_stable_step(const RunConfig& config) {
  const auto& schedule = config.lr_schedule;
  if (schedule.kind != "wsd") return config.train.steps;
  auto step = static_cast<std::int64_t>(
      std::ceil((1 - schedule.cooldown) * static_cast<double>(config.train.steps)));
  while (step > 0 && learning_rate(config, step) != config.optimizer.lr) --step;
  return step;
}

}  // namespace convoy
