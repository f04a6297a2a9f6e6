// Parameters and FLOPs of a model, counted by formula. The one place for planner, metrics, sweeps
// and tables. A multiply-add is 2 FLOPs; training = 3 x forward; norms, residuals and the softmax
// are not counted; attention counts causal pairs, averaged over a window of T.
#pragma once

#include <string>

#include "models/model_config.h"

namespace convoy {

struct ParameterCounts {
  std::int64_t total;          // every parameter once, a tied table once
  std::int64_t active;         // that one token uses
  std::int64_t non_embedding;  // total - V * D
};

// FLOPs per token, of training. Where only a share of the positions has a label, only theirs reach
// the head, and that is what is counted.
struct FlopParts {
  double linear = 0, attention = 0, head = 0, conv = 0, router = 0;
  double total() const { return linear + attention + head + conv + router; }
};

ParameterCounts count_parameters(const ModelConfig& model);
FlopParts training_flops_per_token(const ModelConfig& model, double labelled_share = 1);

// FLOPs per token of training by a named convention: parts (the exact sum), 6n, causal, full;
// the labelled share changes parts alone.
double training_flops_per_token(const ModelConfig& model, const std::string& convention,
                                double labelled_share = 1);

}  // namespace convoy
