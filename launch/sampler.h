// Text from a model, one token at a time. The window is run whole for every token, so a token costs
// a forward pass over at most seq_len positions.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "launch/device_batch.h"
#include "launch/model_instance.h"

namespace convoy {

struct SamplingOptions {
  double temperature = 0.8;   // 0: the most likely token
  std::int64_t top_k = 0;     // 0: all tokens
  std::int64_t tokens = 256;  // at most
  std::uint64_t seed = 0;
};

class Sampler {
 public:
  // The instance must hold one sequence.
  explicit Sampler(ModelInstance& instance);

  // Continues `prompt` (not empty) until `end_of_text` or the limit, calling `emit` for each token.
  void run(std::vector<std::int32_t> prompt, std::int32_t end_of_text,
           const SamplingOptions& options, const std::function<void(std::int32_t)>& emit);

 private:
  std::vector<double> next_logits(const std::vector<std::int32_t>& context);

  ModelInstance& instance_;
  Batch batch_;
  DeviceBatch device_batch_;
};

// The index drawn from softmax(logits / temperature) among the top_k largest, by u in [0, 1).
std::int32_t draw_token(const std::vector<double>& logits, double temperature, std::int64_t top_k,
                        double u);

}  // namespace convoy
