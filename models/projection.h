// Projection: linears that share an input, each output with or without a dynamic convolution.
// Its one idea: the linears' weights and the convolutions' generators (A of low-rank, G of
// head-wise filters) are rows of one joined matrix, so that forward, input gradient and weight
// gradient are one matmul each, whatever is convolved:
//
//   joined [rows, C] = x [rows, D_in] * W^T,  W = [q.weight; k.weight; v.weight; q.A; k.A; v.A]
//
// A convolution then reads its own columns of `joined` (arXiv 2606.03825: X + conv(X) on the
// output of a linear, filters generated from the linear's input).
//
// Over tp ranks, split by outputs (q, k, v, gate, up): every rank sees the whole input of all rows
// and has some channels; A is replicated and z computed on every rank, so that dz, and with it dA,
// is a share of a sum: dz's part of dx rides in the sum over ranks, dA is reduced once per step.
// Split by inputs (o, down): each rank has some of the input's channels, weight and generator
// alike, and [y, z] are summed over ranks together, before the convolution. Where the rows a
// convolution sees are cut, under sequence or context parallelism, the rows before them come as a
// halo.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "core/ops.h"
#include "models/batch_view.h"
#include "models/model_config.h"
#include "models/parameters.h"
#include "models/row_shards.h"
#include "parallel/halo_exchange.h"

namespace convoy {

// What of a linear a tp rank has.
enum class SplitBy : std::uint8_t { outputs, inputs };

// Who runs a projection's convolutions; by_caller_unkept: in an operation that takes no memory for
// their outputs, which are absent then.
enum class Convolutions : std::uint8_t { by_caller, by_caller_unkept, here };

struct ProjectionOutput {
  ConvSite site;
  double init_std;
};

class Projection {
 public:
  static constexpr std::size_t kMaxOutputs = 3;

  struct Saved {
    Tensor input;                              // [rows, D_in]
    Tensor joined, djoined;                    // [conv rows, C]: rows, or own rows by inputs
    Tensor djoined_rows;                       // [rows, C]
    Tensor halo;                               // [halo rows, convolved channels], or none
    std::array<Tensor, kMaxOutputs> outputs;   // [conv rows, D_out] each
    std::array<Tensor, kMaxOutputs> doutputs;  // where the caller writes their gradients
    bool taps_done = false;                    // U and s have their gradients already
  };

  // Declares `<prefix><site>.weight` and, where convolved, `<prefix><site>.conv.{A|G,U,s}`.
  Projection(ParameterStore& store, const ModelConfig& model, const Sharding& sharding,
             SplitBy split, const std::string& prefix,
             const std::vector<ProjectionOutput>& outputs);

  // x is [own_rows, D_in] split by outputs, [rows, D_in / tp] split by inputs.
  void forward(const Context& context, const BatchView& batch, Tensor x, Saved& saved,
               Convolutions convolutions = Convolutions::here) const;
  // Whether every output is convolved over rows that are all here at once, so that the caller may
  // run the convolutions, those of convolution(0), (1), ... over the rows of whole_rows().
  bool convolves_whole_rows() const;
  // Whether it may do so in the backward pass too, with the gradients of the filters.
  bool convolves_back_at_once(const Context& context) const;
  // Whether the backend's conv_swiglu operations keep the outputs of all convolutions.
  bool keeps_gate_and_up(const Context& context) const;
  ConvolvedInput convolution(std::size_t i, const Saved& saved) const;
  ConvGradients gradients(std::size_t i, const Saved& saved) const;  // after prepare_backward
  ConvRows whole_rows(const BatchView& batch) const;
  // Whether forward_add may be called: split by inputs, but whole on this rank, and one output.
  bool adds_residual() const;
  // sum = residual + the output; there is no other output.
  void forward_add(const Context& context, const BatchView& batch, Tensor sum, Tensor x,
                   Tensor residual, Saved& saved) const;
  // Provides saved.doutputs, to be filled before backward_input.
  void prepare_backward(const Context& context, Saved& saved) const;
  // The same for a projection with one output whose gradient is there: dy is not copied, and must
  // stay until backward_weight.
  void prepare_backward(const Context& context, Saved& saved, Tensor dy) const;
  void backward_input(const Context& context, const BatchView& batch, Tensor dx,
                      Saved& saved) const;
  // The same for what is split by outputs, with the sum of dx over tp on its way: whatever does not
  // need dx runs before the wait(). Memory taken meanwhile must stay until then.
  Work start_backward_input(const Context& context, const BatchView& batch, Tensor dx, Saved& saved,
                            Convolutions convolutions = Convolutions::here) const;
  void backward_weight(const Context& context, const BatchView& batch, Saved& saved) const;

 private:
  struct Output {
    std::int64_t channels;  // of this rank
    std::int64_t column;    // of its channels in `joined`
    ConvShape conv;
    std::int64_t generated_column, generated_columns;
    std::int64_t halo_column;  // of its channels in a halo
    Parameter* weight = nullptr;
    Parameter* s = nullptr;
    Parameter* u = nullptr;

    bool convolves() const { return conv.kind != FilterKind::none; }
  };

  void declare_generator(ParameterStore& store, const ModelConfig& model, const std::string& prefix,
                         ConvSite site, Output& output);
  void declare_taps(ParameterStore& store, const ModelConfig& model, const std::string& prefix,
                    ConvSite site, Output& output);
  // A matrix [outputs, inputs], or [outputs, more, inputs], as this projection is split.
  Placement split_matrix(std::vector<std::int64_t> shape) const;
  // What has one value a channel: [.., channels].
  Placement split_channels(std::vector<std::int64_t> shape) const;
  Tensor joined_weight() const;
  Tensor joined_gradient() const;
  Tensor convolved(const Output& output, const Tensor& joined) const;  // the output's columns
  ConvFilters filters(const Output& output, const Tensor& joined) const;
  ConvGradients tap_gradients(const Output& output) const;  // of s and U
  void forward_by_outputs(const Context& context, const BatchView& batch, Tensor x, Saved& saved,
                          Convolutions convolutions) const;
  void provide_outputs(const Context& context, const HaloExchange& exchange, Saved& saved,
                       Convolutions convolutions) const;
  void convolve(const Context& context, const BatchView& batch, HaloExchange& exchange,
                Saved& saved) const;
  void convolve_run(const Context& context, const BatchView& batch, const RowGather::Run& run,
                    ConvPart part, Saved& saved) const;
  void backward_convolve(const Context& context, const BatchView& batch, Saved& saved) const;
  HaloExchange halo_exchange(const Context& context, const BatchView& batch) const;
  std::vector<Tensor> convolved_parts(const Tensor& joined) const;
  std::int64_t conv_rows(const BatchView& batch) const;
  ConvRows rows_of(const Output& output, const BatchView& batch, const Saved& saved,
                   ConvPart part) const;

  Sharding sharding_;
  RowShards shards_;
  SplitBy split_;
  std::int64_t inputs_ = 0;        // D_in, of this rank
  std::int64_t columns_ = 0;       // C
  std::int64_t halo_columns_ = 0;  // channels that are convolved
  int width_ = 1;                  // W
  std::vector<Output> outputs_;
};

}  // namespace convoy
