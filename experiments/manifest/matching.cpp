#include "experiments/manifest/matching.h"

#include <cmath>
#include <functional>

#include "core/error.h"
#include "launch/run_labels.h"

namespace convoy {
namespace {

constexpr std::int64_t kFfnUnit = 8;
constexpr std::int64_t kFurthest = 4;  // shapes up to so many times the arm's own are tried

std::int64_t to_ffn_unit(double width) {
  const auto units = std::llround(width / static_cast<double>(kFfnUnit));
  return kFfnUnit * std::max<std::int64_t>(units, 1);
}

// Candidate i = 1, 2, ... of the arm's shape; the last one is the first beyond the furthest.
ModelConfig candidate(const ModelConfig& arm, const std::string& by, std::int64_t i) {
  ModelConfig model = arm;
  if (by == "depth") {
    model.n_layers = i;
  } else if (by == "ffn") {
    model.d_ff = i * kFfnUnit;
  } else {
    model.d_model = i * 2 * arm.n_heads;  // an even head width, for rotary positions
    if (arm.d_ff == 0) return model;
    model.d_ff = to_ffn_unit(static_cast<double>(arm.d_ff * model.d_model) /
                             static_cast<double>(arm.d_model));
  }
  return model;
}

std::int64_t candidates(const ModelConfig& arm, const std::string& by) {
  if (by == "depth") return kFurthest * arm.n_layers;
  if (by == "ffn") return kFurthest * arm.d_ff / kFfnUnit;
  return kFurthest * arm.d_model / (2 * arm.n_heads);
}

}  // namespace

double parameters_by(const ModelConfig& model, const std::string& convention) {
  const ParameterCounts counts = count_parameters(model);
  if (convention == "total") return static_cast<double>(counts.total);
  return static_cast<double>(convention == "active" ? counts.active : counts.non_embedding);
}

ModelConfig matched_shape(const ModelConfig& reference, const RunConfig& arm,
                          const PlanSection& plan) {
  const ModelConfig& own = arm.model;
  if (plan.match_by == "tokens") return own;
  const double labelled = labelled_share(arm);
  const auto measure = [&](const ModelConfig& model) {
    return plan.match == "params" ? parameters_by(model, plan.param_convention)
                                  : training_flops_per_token(model, plan.flop_convention, labelled);
  };
  const double target = measure(reference);
  ModelConfig best = own;
  double best_distance = INFINITY;
  for (std::int64_t i = 1; i <= candidates(own, plan.match_by); ++i) {
    const ModelConfig model = candidate(own, plan.match_by, i);
    const double distance = std::abs(measure(model) - target);
    if (distance >= best_distance || !problems_of(model).empty()) continue;
    best = model;
    best_distance = distance;
  }
  return best;
}

double matched_tokens(const ReferenceRun& reference, const RunConfig& arm,
                      const std::string& arm_name, const SweepManifest& manifest) {
  const PlanSection& plan = manifest.plan;
  if (plan.match == "flops" && plan.match_by == "tokens") {
    return reference.flops / training_flops_per_token(arm, plan.flop_convention);
  }
  if (plan.match == "wallclock") {
    return reference.tokens * plan.tokens_per_s.at(arm_name) /
           plan.tokens_per_s.at(manifest.compare.reference);
  }
  return reference.tokens;
}

}  // namespace convoy
