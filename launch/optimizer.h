// AdamW over all parameters, with the decision whether a step may change anything: its moments, and
// the control block in device memory (core/backend.h, StepControl).
#pragma once

#include <array>
#include <vector>

#include "launch/config.h"
#include "models/parameters.h"

namespace convoy {

struct UpdateResult {
  double gradient_norm;  // before clipping
  bool skipped;
  std::int64_t skipped_in_row, skipped_total;
};

class Optimizer {
 public:
  using Control = std::array<double, StepControl::kCount>;

  Optimizer(Backend& backend, ParameterStore& store, const OptimizerConfig& config);

  // Updates the parameters from store.gradients(), or changes nothing where the step is bad.
  UpdateResult update(double learning_rate, double loss);

  Tensor moment1(const Parameter& parameter) const { return part(moment1_.view(), parameter); }
  Tensor moment2(const Parameter& parameter) const { return part(moment2_.view(), parameter); }
  void set_moments(const Parameter& parameter, const Tensor& moment1, const Tensor& moment2);
  Control control() const;  // a copy on the host
  void set_control(const Control& control);

 private:
  static Tensor part(const Tensor& flat, const Parameter& parameter);

  // Neighbouring parameters with the same decay, updated as one: the gaps between them hold zeros
  // and stay so.
  struct Span {
    std::int64_t first, count;  // elements of the flat buffers
    double decay;
  };
  std::vector<Span> spans() const;

  Backend& backend_;
  ParameterStore& store_;
  OptimizerConfig config_;
  OwnedTensor moment1_, moment2_;  // flat, as the values are
  OwnedTensor control_, sum_of_squares_, loss_;
};

}  // namespace convoy
