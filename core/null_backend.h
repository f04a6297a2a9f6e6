// NullBackend: a device that does nothing. A model that runs on it over a measuring Arena shows,
// through its own code, how much memory it takes. Its tensors must not be read.
#pragma once

#include "core/backend.h"
#include "core/conv_shape.h"

namespace convoy {

class NullBackend final : public Backend {
 public:
  explicit NullBackend(DeviceKind like = DeviceKind::cpu) : like_(like) {}

  std::string_view name() const override { return "null"; }
  DeviceKind device() const override { return like_; }

  void* allocate_zeroed(std::size_t) override { return this; }  // an address nobody reads
  void deallocate(void*, std::size_t) noexcept override {}
  void copy(Tensor, Tensor) override {}
  void convert(Tensor, Tensor) override {}
  void fill(Tensor, double) override {}
  void synchronize() override {}

  void sum(Tensor, Tensor) override {}
  void add(Tensor, Tensor, Tensor) override {}
  void add_scaled(Tensor, Tensor, double) override {}
  void matmul(Tensor, Tensor, Transpose, Tensor, Transpose, Accumulate) override {}

  void rmsnorm_forward(Tensor, Tensor, Tensor, Tensor, double) override {}
  void rmsnorm_backward_input(Tensor, Tensor, Tensor, Tensor, Tensor) override {}
  void rmsnorm_backward_weight(Tensor, Tensor, Tensor, Tensor) override {}
  void rope(Tensor, Tensor, std::int64_t, double, RopeDirection) override {}

  void attention_forward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                         const AttentionShape&) override {}
  void attention_backward(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                          Tensor, const AttentionShape&) override {}

  void swiglu_forward(Tensor, Tensor, Tensor) override {}
  void swiglu_backward(Tensor, Tensor, Tensor, Tensor, Tensor) override {}
  void embedding_forward(Tensor, Tensor, Tensor, const TableRange&) override {}
  void embedding_backward(Tensor, Tensor, Tensor, const TableRange&) override {}
  void softmax_statistics(Tensor, Tensor, Tensor, std::int64_t) override {}
  void merge_softmax_statistics(Tensor, Tensor) override {}
  void cross_entropy_losses(Tensor, Tensor, Tensor) override {}
  void cross_entropy_backward(Tensor, Tensor, Tensor, std::int64_t, const Scalar&) override {}

  void conv_forward(Tensor, Tensor, const ConvFilters&, const ConvShape&,
                    const ConvRows&) override {}
  void conv_backward_input(Tensor, Tensor, Tensor, Tensor, Tensor, const ConvFilters&,
                           const ConvShape&, const ConvRows&) override {}
  void conv_backward_weight(Tensor, Tensor, Tensor, Tensor, const ConvFilters&, const ConvShape&,
                            const ConvRows&) override {}

  bool keeps_gate_and_up(const ConvShape& shape, std::int64_t channels,
                         DType dtype) const override {
    return like_ != DeviceKind::cuda || !fuses_on_gpu(shape, channels, dtype);
  }

  void add_sum_of_squares(Tensor, Tensor) override {}
  void decide_update(Tensor, Tensor, Tensor, const UpdateRules&) override {}
  void adamw(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, const AdamWSettings&) override {}

 private:
  DeviceKind like_;  // the device that it stands for
};

}  // namespace convoy
