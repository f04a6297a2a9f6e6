// RMSNorm (Zhang and Sennrich, arXiv 1910.07467) over the channels of a row, or over each head.
#pragma once

#include <string>

#include "core/ops.h"
#include "models/parameters.h"

namespace convoy {

class RmsNorm {
 public:
  struct Saved {
    Tensor input;              // [rows, G*width]
    Tensor rstd;               // [rows, G]
    Tensor dy;                 // [rows, G*width], kept for the weight gradient
    bool weight_done = false;  // it has its gradient already
  };

  // `gradient`: whether this rank sees all that the weight's gradient sums over (heads, rows).
  RmsNorm(ParameterStore& store, const std::string& name, std::int64_t width, double epsilon,
          LocalGradient gradient)
      : weight_(&store.declare(name, {.shape = {width}, .gradient = gradient},
                               Initializer::constant(1), WeightDecay::no)),
        epsilon_(epsilon) {}

  Tensor forward(const Context& context, Tensor x, Saved& saved) const {
    Tensor y = prepare(context, x, saved);
    ops::rmsnorm_forward(context, y, saved.rstd, x, weight_->value, epsilon_);
    return y;
  }

  // For an operation that normalizes x among other things: where its norm goes, and what it needs.
  Tensor prepare(const Context& context, Tensor x, Saved& saved) const {
    saved.input = x;
    saved.rstd = context.take_statistics({x.rows(), x.cols() / weight_->size()});
    return context.take({x.rows(), x.cols()});
  }
  struct Operands {
    Tensor weight, dweight;
    double epsilon;
  };
  Operands operands() const { return {weight_->value, weight_->gradient, epsilon_}; }

  // The norm of sum = a + b, which is set.
  Tensor forward_sum(const Context& context, Tensor sum, Tensor a, Tensor b, Saved& saved) const {
    saved.input = sum;
    saved.rstd = context.take_statistics({sum.rows(), sum.cols() / weight_->size()});
    Tensor y = context.take({sum.rows(), sum.cols()});
    ops::add_rmsnorm_forward(context, sum, y, saved.rstd, a, b, weight_->value, epsilon_);
    return y;
  }

  // dx = residual + what comes back through the norm. Where both halves of the backward pass run
  // together the weight gets its gradient here.
  void backward_input_add(const Context& context, Tensor dx, Tensor dy, Tensor residual,
                          Saved& saved) const {
    saved.dy = dy;
    saved.weight_done = context.parts == BackwardParts::together;
    if (saved.weight_done) {
      return ops::rmsnorm_backward(context, dx, weight_->gradient, dy, saved.input, saved.rstd,
                                   weight_->value, residual);
    }
    ops::rmsnorm_backward_input_add(context, dx, dy, saved.input, saved.rstd, weight_->value,
                                    residual);
  }

  void backward_input(const Context& context, Tensor dx, Tensor dy, Saved& saved) const {
    saved.dy = dy;
    saved.weight_done = false;
    ops::rmsnorm_backward_input(context, dx, dy, saved.input, saved.rstd, weight_->value);
  }

  void backward(const Context& context, Tensor dx, Tensor dy, const Saved& saved) const {
    ops::rmsnorm_backward(context, dx, weight_->gradient, dy, saved.input, saved.rstd,
                          weight_->value, {});
  }

  void backward_weight(const Context& context, Saved& saved) const {
    if (saved.weight_done) return;
    ops::rmsnorm_backward_weight(context, weight_->gradient, saved.dy, saved.input, saved.rstd);
  }

 private:
  Parameter* weight_;
  double epsilon_;
};

}  // namespace convoy
