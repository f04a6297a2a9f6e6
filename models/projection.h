// Projection: linears that share an input, each output with or without a dynamic convolution.
// Its one idea: the linears' weights and the convolutions' generators (A of low-rank, G of
// head-wise filters) are rows of one joined matrix, so that forward, input gradient and weight
// gradient are one matmul each, whatever is convolved:
//
//   joined [rows, C] = x [rows, D_in] * W^T,  W = [q.weight; k.weight; v.weight; q.A; k.A; v.A]
//
// A convolution then reads its own columns of `joined` (arXiv 2606.03825: X + conv(X) on the
// output of a linear, filters generated from the linear's input).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "core/ops.h"
#include "models/batch_view.h"
#include "models/model_config.h"
#include "models/parameters.h"

namespace convoy {

struct ProjectionOutput {
  ConvSite site;
  double init_std;
};

class Projection {
 public:
  static constexpr std::size_t kMaxOutputs = 3;

  struct Saved {
    Tensor input;                              // [rows, D_in]
    Tensor joined, djoined;                    // [rows, C]
    std::array<Tensor, kMaxOutputs> outputs;   // [rows, D_out] each
    std::array<Tensor, kMaxOutputs> doutputs;  // where the caller writes their gradients
    bool taps_done = false;                    // U and s have their gradients already
  };

  // Declares `<prefix><site>.weight` and, where convolved, `<prefix><site>.conv.{A|G,U,s}`.
  Projection(ParameterStore& store, const ModelConfig& model, const std::string& prefix,
             const std::vector<ProjectionOutput>& outputs);

  void forward(const Context& context, const BatchView& batch, Tensor x, Saved& saved) const;
  // Provides saved.doutputs, to be filled before backward_input.
  void prepare_backward(const Context& context, Saved& saved) const;
  // The same for a projection with one output whose gradient is there: dy is not copied, and must
  // stay until backward_weight.
  void prepare_backward(const Context& context, Saved& saved, Tensor dy) const;
  void backward_input(const Context& context, const BatchView& batch, Tensor dx,
                      Saved& saved) const;
  void backward_weight(const Context& context, const BatchView& batch, Saved& saved) const;

 private:
  struct Output {
    std::int64_t channels;
    std::int64_t column;  // of its channels in `joined`
    ConvShape conv;
    std::int64_t generated_column, generated_columns;
    Parameter* weight = nullptr;
    Parameter* s = nullptr;
    Parameter* u = nullptr;
  };

  void declare_generator(ParameterStore& store, const ModelConfig& model, const std::string& prefix,
                         ConvSite site, Output& output);
  void declare_taps(ParameterStore& store, const ModelConfig& model, const std::string& prefix,
                    ConvSite site, Output& output);
  Tensor joined_weight() const;
  Tensor joined_gradient() const;
  Tensor convolved(const Output& output, const Tensor& joined) const;  // the output's columns
  ConvFilters filters(const Output& output, const Tensor& joined) const;
  ConvGradients tap_gradients(const Output& output) const;  // of s and U
  static ConvRows rows_of(const BatchView& batch);

  std::int64_t inputs_ = 0;   // D_in
  std::int64_t columns_ = 0;  // C
  std::vector<Output> outputs_;
};

}  // namespace convoy
