// AdamW over this rank's parts of the parameters, with the decision whether a step may change
// anything: its moments, and the control block in device memory (core/backend.h, StepControl). The
// decision is the same on every rank, because the gradient norm is.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "launch/config.h"
#include "launch/own_part.h"
#include "parallel/communicator.h"

namespace convoy {

struct UpdateResult {
  double gradient_norm;  // before clipping
  bool skipped;
  std::int64_t skipped_in_row, skipped_total;
};

// Over whom the gradient norm is summed, and which share of what all ranks of its group have this
// rank counts. In invariant mode the sum is exact: its bits do not depend on the layout.
struct NormRanks {
  Communicator& world;
  int sharers = 1, index = 0;
  NumericsMode mode = NumericsMode::fast;
};

class Optimizer {
 public:
  using Control = std::array<double, StepControl::kCount>;

  Optimizer(Backend& backend, std::vector<OwnPart> parts, const NormRanks& ranks,
            const OptimizerConfig& config);
  // Of a lone rank.
  Optimizer(Backend& backend, ParameterStore& store, const OptimizerConfig& config);

  // Updates the parts' values from their gradients, or changes nothing where the step is bad.
  UpdateResult update(double learning_rate, double loss);
  // The same in three: what goes to the device, what the device does, what it found. On a lone rank
  // and in fast mode apply() asks for operations of the device alone; loss f64 [1] in its memory is
  // any number that is finite where the loss is.
  void set_rate(double learning_rate);
  void apply(const Tensor& loss);
  UpdateResult result() const { return result_of(control()); }
  // The third without waiting: what it found, once the arrival has been waited for.
  std::unique_ptr<Arrival> fetch(Control& control) const;
  static UpdateResult result_of(const Control& control);

  const std::vector<OwnPart>& parts() const { return parts_; }
  Tensor moment1(std::size_t part) const { return moment(moment1_.view(), part); }
  Tensor moment2(std::size_t part) const { return moment(moment2_.view(), part); }
  // Sets a part and its moments, [count] each, from host memory in the dtypes they are kept in.
  void set(std::size_t part, const Tensor& value, const Tensor& first, const Tensor& second);
  Control control() const;  // a copy on the host
  void set_control(const Control& control);

 private:
  Tensor moment(const Tensor& flat, std::size_t part) const;
  Tensor counted(const OwnPart& part) const;
  std::vector<Tensor> counted_gradients() const;
  void sum_squares();
  void sum_squares_exactly();
  void add_exactly(class ExactSum& sum, const Tensor& values) const;

  // Neighbouring parts with the same decay, updated as one: the gaps between them hold zeros and
  // stay so.
  struct Span {
    std::size_t first_part;
    std::int64_t count;  // elements from its beginning, gaps included
    double decay;
  };
  void place_parts();

  Backend& backend_;
  std::vector<OwnPart> parts_;
  std::vector<std::int64_t> places_;  // of each part in the moments
  std::vector<Span> spans_;
  NormRanks ranks_;
  OptimizerConfig config_;
  OwnedTensor moment1_, moment2_;  // flat
  OwnedTensor control_, sum_of_squares_, loss_;
};

}  // namespace convoy
