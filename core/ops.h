// The operations as layers call them: each checks shapes, dtypes and devices once, for every
// backend, and then runs on the Context's device. Meanings and shapes: core/backend.h.
#pragma once

#include <initializer_list>

#include "core/backend.h"
#include "core/memory.h"

namespace convoy {

// Whether the weight half of a layer's backward pass follows its input half at once, so that an
// operation may do both in one pass; a pipeline may keep them apart.
enum class BackwardParts : bool { apart, together };

// Where a layer runs: its device, and the memory of the micro-batch at hand.
struct Context {
  Backend& backend;
  Arena& arena;
  DType dtype;  // of activations
  BackwardParts parts = BackwardParts::apart;

  Tensor take(std::initializer_list<std::int64_t> shape) const { return arena.take(dtype, shape); }
  // For norms and softmax sums, which bf16 is too coarse for.
  Tensor take_statistics(std::initializer_list<std::int64_t> shape) const {
    return arena.take(dtype == DType::bf16 ? DType::f32 : dtype, shape);
  }
};

namespace ops {

void copy(const Context& context, Tensor destination, Tensor source);
void fill(const Context& context, Tensor destination, double value);
void add(const Context& context, Tensor y, Tensor a, Tensor b);
void matmul(const Context& context, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
            Transpose transpose_b, Accumulate accumulate = Accumulate::no);
void matmul_add(const Context& context, Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                Transpose transpose_b, Tensor addend);

void rmsnorm_forward(const Context& context, Tensor y, Tensor rstd, Tensor x, Tensor weight,
                     double epsilon);
void rmsnorm_backward_input(const Context& context, Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                            Tensor weight);
void rmsnorm_backward_weight(const Context& context, Tensor dweight, Tensor dy, Tensor x,
                             Tensor rstd);
void add_rmsnorm_forward(const Context& context, Tensor sum, Tensor y, Tensor rstd, Tensor a,
                         Tensor b, Tensor weight, double epsilon);
void rmsnorm_backward_input_add(const Context& context, Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                                Tensor weight, Tensor residual);
// `residual` may be absent.
void rmsnorm_backward(const Context& context, Tensor dx, Tensor dweight, Tensor dy, Tensor x,
                      Tensor rstd, Tensor weight, Tensor residual);
void rope(const Context& context, Tensor x, Tensor positions, std::int64_t head_width, double theta,
          RopeDirection direction);

void attention_forward(const Context& context, Tensor out, Tensor log_sum_exp, Tensor q, Tensor k,
                       Tensor v, Tensor document_start, const AttentionShape& shape);
void attention_backward(const Context& context, Tensor dq, Tensor dk, Tensor dv, Tensor dout,
                        Tensor q, Tensor k, Tensor v, Tensor out, Tensor log_sum_exp,
                        Tensor document_start, const AttentionShape& shape);

void swiglu_forward(const Context& context, Tensor y, Tensor gate, Tensor up);
void swiglu_backward(const Context& context, Tensor dgate, Tensor dup, Tensor dy, Tensor gate,
                     Tensor up);
void embedding_forward(const Context& context, Tensor y, Tensor table, Tensor tokens,
                       TableRange range = {});
void embedding_backward(const Context& context, Tensor dtable, Tensor dy, Tensor tokens,
                        TableRange range = {});

void softmax_statistics(const Context& context, Tensor statistics, Tensor logits, Tensor targets,
                        std::int64_t first_class);
void merge_softmax_statistics(const Context& context, Tensor statistics, Tensor parts);
void cross_entropy_losses(const Context& context, Tensor losses, Tensor statistics, Tensor targets);
void cross_entropy_backward(const Context& context, Tensor logits, Tensor statistics,
                            Tensor targets, std::int64_t first_class, const Scalar& scale);
void cross_entropy(const Context& context, Tensor losses, Tensor statistics, Tensor logits,
                   Tensor targets, const Scalar& scale);

void conv_forward(const Context& context, Tensor y, Tensor x, const ConvFilters& filters,
                  const ConvShape& shape, const ConvRows& rows);
void conv_forward_add(const Context& context, Tensor sum, Tensor x, Tensor addend,
                      const ConvFilters& filters, const ConvShape& shape, const ConvRows& rows);
void conv_backward_input(const Context& context, Tensor dx, Tensor dgenerated, Tensor dhalo,
                         Tensor dy, Tensor x, const ConvFilters& filters, const ConvShape& shape,
                         const ConvRows& rows);
void conv_backward_weight(const Context& context, Tensor ds, Tensor du, Tensor dy, Tensor x,
                          const ConvFilters& filters, const ConvShape& shape, const ConvRows& rows);
void conv_backward(const Context& context, const ConvGradients& gradients, Tensor dy, Tensor x,
                   const ConvFilters& filters, const ConvShape& shape, const ConvRows& rows);
void attention_inputs_forward(const Context& context, std::span<const AttentionInput> inputs,
                              const HeadsShape& shape);
void attention_inputs_backward(const Context& context,
                               std::span<const AttentionInputGradients> gradients,
                               std::span<const AttentionInput> inputs, const HeadsShape& shape);
void conv_swiglu_forward(const Context& context, Tensor y, const ConvolvedInput& gate,
                         const ConvolvedInput& up, const ConvRows& rows);
void conv_swiglu_backward(const Context& context, Tensor dgate, Tensor dup, Tensor dy,
                          const ConvolvedInput& gate, const ConvolvedInput& up,
                          const ConvRows& rows);

}  // namespace ops
}  // namespace convoy
