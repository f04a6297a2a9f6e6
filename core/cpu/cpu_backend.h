// CpuBackend: the reference implementation of every operation, f64 and f32, one thread a rank.
// Its parts lie in one file per family of operations beside this header.
#pragma once

#include <memory>

#include "core/backend.h"
#include "core/cpu/scratch.h"

namespace convoy {

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(NumericsMode mode) : mode_(mode) {}

  std::string_view name() const override { return "cpu"; }
  DeviceKind device() const override { return DeviceKind::cpu; }

  void* allocate_zeroed(std::size_t bytes) override;
  void deallocate(void* data, std::size_t bytes) noexcept override;
  void copy(Tensor destination, Tensor source) override;
  void convert(Tensor destination, Tensor source) override;
  void fill(Tensor destination, double value) override;
  void synchronize() override {}

  void sum(Tensor total, Tensor x) override;
  void add(Tensor y, Tensor a, Tensor b) override;
  void add_scaled(Tensor y, Tensor x, double scale) override;
  void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
              Accumulate accumulate) override;

  void rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor weight, double epsilon) override;
  void rmsnorm_backward_input(Tensor dx, Tensor dy, Tensor x, Tensor rstd, Tensor weight) override;
  void rmsnorm_backward_weight(Tensor dweight, Tensor dy, Tensor x, Tensor rstd) override;
  void rope(Tensor x, Tensor positions, std::int64_t head_width, double theta,
            RopeDirection direction) override;

  void attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                         Tensor document_start, const AttentionShape& shape) override;
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k,
                          Tensor v, Tensor out, Tensor log_sum_exp, Tensor document_start,
                          const AttentionShape& shape) override;

  void swiglu_forward(Tensor y, Tensor gate, Tensor up) override;
  void swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) override;

  void embedding_forward(Tensor y, Tensor table, Tensor tokens, const TableRange& range) override;
  void embedding_backward(Tensor dtable, Tensor dy, Tensor tokens,
                          const TableRange& range) override;
  void softmax_statistics(Tensor statistics, Tensor logits, Tensor targets,
                          std::int64_t first_class) override;
  void merge_softmax_statistics(Tensor statistics, Tensor parts) override;
  void cross_entropy_losses(Tensor losses, Tensor statistics, Tensor targets) override;
  void cross_entropy_backward(Tensor logits, Tensor statistics, Tensor targets,
                              std::int64_t first_class, const Scalar& scale) override;

  void conv_forward(Tensor y, Tensor x, const ConvFilters& filters, const ConvShape& shape,
                    const ConvRows& rows) override;
  void conv_backward_input(Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy, Tensor x,
                           const ConvFilters& filters, const ConvShape& shape,
                           const ConvRows& rows) override;
  void conv_backward_weight(Tensor ds, Tensor du, Tensor dy, Tensor x, const ConvFilters& filters,
                            const ConvShape& shape, const ConvRows& rows) override;

  void add_sum_of_squares(Tensor sum, Tensor x) override;
  void decide_update(Tensor control, Tensor sum_of_squares, Tensor loss,
                     const UpdateRules& rules) override;
  void adamw(Tensor value, Tensor master, Tensor moment1, Tensor moment2, Tensor gradient,
             Tensor control, const AdamWSettings& settings) override;

 private:
  NumericsMode mode_;
  cpu::Scratch scratch_;
};

std::unique_ptr<Backend> make_cpu_backend(NumericsMode mode);

}  // namespace convoy
