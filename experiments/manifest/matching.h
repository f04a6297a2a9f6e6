// What makes two architectures comparable: equal FLOPs, parameters, tokens or time, reached by the
// number of tokens or by the shape of the model.
#pragma once

#include <string>

#include "experiments/manifest/sweep_manifest.h"
#include "launch/config.h"

namespace convoy {

double parameters_by(const ModelConfig& model, const std::string& convention);

// The model of `arm` with the depth, width or feed-forward width (match_by) that brings its FLOPs
// per token, or its parameters (match), closest to those of `reference`. Width is moved in steps
// that keep the heads whole and takes d_ff along in proportion; d_ff is a multiple of 8.
ModelConfig matched_shape(const ModelConfig& reference, const RunConfig& arm,
                          const PlanSection& plan);

// Optimizer steps of `arm` (batches of `batch` tokens) that match a reference run.
struct ReferenceRun {
  double tokens = 0, flops = 0;  // flops by the plan's convention
};
double matched_tokens(const ReferenceRun& reference, const RunConfig& arm,
                      const std::string& arm_name, const SweepManifest& manifest);

}  // namespace convoy
