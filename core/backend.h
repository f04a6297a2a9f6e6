// Backend: what a device must be able to do, on one page. A device is a list of operations.
// CpuBackend is the reference; layers call these through core/ops.h, which checks shapes, dtypes
// and devices once for every backend. How to add one: docs/adding_an_op.md.
//
// Conventions. Outputs come first, then inputs, then sizes. Matrices are row-major; "rows" are
// sequences x positions. A gradient of an input is set; a gradient of a weight is added to.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/scalar.h"
#include "core/tensor.h"

namespace convoy {

class MatmulChoices;

enum class Transpose : bool { no, yes };
enum class Accumulate : bool { no, yes };
enum class RopeDirection : bool { forward, backward };
enum class MeasureMatmuls : bool { no, yes };

// fast: the library's matmul. invariant: the bits of an output row depend on that row alone.
enum class NumericsMode : std::uint8_t { fast, invariant };

// no: operations may add in any order where that is faster, so bits change from run to run.
enum class Deterministic : bool { no, yes };

// B sequences of T rows; Q query heads share `kv_heads` key/value heads; K channels a head.
//
// Where a rank has some queries of each sequence and the keys of all of it, the queries are `runs`
// runs of equal length that begin at the positions `run_begin`.
struct AttentionShape {
  std::int64_t sequences, length;
  std::int64_t query_heads, kv_heads, head_width;
  bool one_document = false;         // promised: document_start is 0 everywhere
  std::int64_t key_length = length;  // rows of k and v of a sequence
  int runs = 1;
  std::array<std::int64_t, 2> run_begin = {0, 0};
};

// How a dynamic convolution makes its taps (arXiv 2606.03825). `fixed` is the static filter.
enum class FilterKind : std::uint8_t { none, fixed, headwise, lowrank };

struct ConvShape {
  FilterKind kind;
  int width;                 // W taps, 1 to 8
  std::int64_t filter_rank;  // R, of low-rank filters
  std::int64_t head_size;    // H channels that share a head-wise filter
  bool residual;             // y = x + conv(x)
};

// The filters of a convolution over D channels, at every row t and tap w:
//   fixed     s[w,d]
//   headwise  s[w,d] + generated[t, d/H * W + w]
//   lowrank   s[w,d] + sum_r generated[t,r] * u[r,w,d]
struct ConvFilters {
  Tensor s;          // [W, D]
  Tensor u;          // [R, W, D], low-rank only
  Tensor generated;  // [rows, D/H * W] or [rows, R]; columns of the projection's output
};

// Where rows stand. Each of `segments` runs of `length` rows is a contiguous piece of a sequence;
// reach[row] says how many rows back a tap may look (up to 7) before it would cross the start of
// the row's document. Rows before a segment are in `halo`, W-1 rows a segment, or absent, and then
// no row of the segment may reach beyond it.
//
// A call may compute a part only, so that a halo can travel meanwhile: forward the interior, which
// reads no halo, then the boundary; backward the boundary, after which dhalo is complete, then the
// interior, after which everything is. The bits are those of one call for all.
enum class ConvPart : std::uint8_t {
  all,
  interior,  // rows W-1, W, ... of each segment
  boundary,  // rows 0 to W-2
};

struct ConvRows {
  std::int64_t segments, length;
  Tensor reach;  // i32 [segments * length]
  Tensor halo;   // [segments * (W-1), D]
  ConvPart part = ConvPart::all;
};

// The part of a vocabulary that a table holds: tokens [first, first + rows) of `total`. Rows past
// `total` are padding.
struct TableRange {
  std::int64_t first = 0;
  std::int64_t total = 0;  // 0: all of it, the table's rows
};

// What a whole backward pass of a convolution writes: dx, dgenerated and dhalo are set, ds and du
// added to; dgenerated, dhalo and du are absent where there is nothing of that kind.
struct ConvGradients {
  Tensor dx, dgenerated, dhalo, ds, du;
};

// One convolution among several of one operation: y from x, [rows, D].
struct ConvolvedInput {
  Tensor y, x;
  ConvFilters filters;
  ConvShape conv;
};

// q, k or v on its way from a projection to attention: convolved, then normalized over each head
// where it has a norm, then rotated where it is q or k.
struct AttentionInput {
  Tensor y, x;  // [rows, heads * K]
  ConvFilters filters;
  ConvShape conv;
  // Absent without a norm: what it reads [rows, heads * K], 1 / rms [rows, heads], weight [K].
  // Where the backend does not keep `convolved`, only the backward operation may read it.
  Tensor convolved, rstd, norm_weight;
  bool rotates;
};

// dy [rows, heads * K] is the gradient of y; dconvolved, where there is a norm, is like it. Both
// are the operation's to write into. dnorm_weight [K] is added to.
struct AttentionInputGradients {
  Tensor dy, dconvolved, dnorm_weight;
  ConvGradients conv;
};

// Of all of them: whole sequences (no halo), positions i32 [rows] as of rope, K channels a head.
struct HeadsShape {
  ConvRows rows;
  Tensor positions;
  std::int64_t head_width;
  double rope_theta, norm_epsilon;
};

struct AdamWSettings {
  double beta1, beta2, epsilon, weight_decay;
};

// What AdamW updates: the master where one is given, in the gradient's dtype, and the value as its
// bf16 rounding; else the value. All flat, of one size.
struct AdamWTensors {
  Tensor value, master, moment1, moment2, gradient;
  double weight_decay;
};

// What one optimizer step needs and decides, kept in device memory (f64[kCount]) so that a captured
// graph of a step can be replayed. Written by the host: learning_rate. The rest by the device.
struct StepControl {
  enum Index : int {
    learning_rate,
    adam_steps,      // t of AdamW: updates done, skipped steps not counted
    gradient_norm,   // before clipping
    update_scale,    // what gradients are multiplied by (clipping)
    skip,            // 1: this step must change nothing
    norm_average,    // running mean of gradient norms of the steps not skipped
    skipped_in_row,  // bad steps since the last good one
    skipped_total,
    kCount
  };
};

struct UpdateRules {
  double clip;          // largest global gradient norm; 0: no clipping
  double spike_factor;  // skip a step whose norm exceeds this multiple of the average; 0: never
};

class Trace;

// Operations that a backend keeps, to be asked for again as one (core/recorded_region.h).
class Recording {
 public:
  virtual ~Recording() = default;
  // As if all of them were asked for now, with the values that are in the device's memory by then.
  virtual void replay() = 0;
  virtual bool is_current() const = 0;  // what they use of the backend's own is where it was
  virtual std::string description() const = 0;  // "a CUDA graph of 331 operations"
};

// Values on their way to the host.
class Arrival {
 public:
  virtual ~Arrival() = default;
  virtual void wait() = 0;  // until they are there
};

class Backend {
 public:
  virtual ~Backend() = default;

  // Where operations are recorded as they run (core/ops.h does it), or null. Host time: it says
  // nothing about a device that runs behind.
  void trace_to(Trace* trace) { trace_ = trace; }
  Trace* trace() const { return trace_; }

  virtual std::string_view name() const = 0;
  virtual DeviceKind device() const = 0;

  // Memory. Host memory may be given to and taken from any device by `copy`.
  virtual void* allocate_zeroed(std::size_t bytes) = 0;
  virtual void deallocate(void* data, std::size_t bytes) noexcept = 0;
  virtual void copy(Tensor destination, Tensor source) = 0;  // same shape and dtype, any strides
  // A copy to contiguous host memory that the host need not wait for: the values are those of now,
  // and in `host` once the arrival has been waited for. It must not outlive either.
  virtual std::unique_ptr<Arrival> copy_behind(Tensor host, Tensor source);
  virtual void convert(Tensor destination, Tensor source) = 0;  // between f64, f32 and bf16
  virtual void fill(Tensor destination, double value) = 0;
  virtual void synchronize() = 0;  // the host waits for everything issued
  // Keeps the operations that `body` asks for and runs none of them. Throws where they cannot be
  // kept: `body` copies from or to the host, allocates, waits. Then nothing of it has happened on
  // the device either.
  virtual bool can_record() const { return false; }
  virtual std::unique_ptr<Recording> record(const std::function<void()>& body);
  // Median seconds of `body` over `repeats` runs, after one that does not count.
  virtual double seconds_of(int repeats, const std::function<void()>& body);

  // total f64 [1] = the sum of x f64 [n], in one order for a given n.
  virtual void sum(Tensor total, Tensor x) = 0;

  // y = a + b and y += scale * x.
  virtual void add(Tensor y, Tensor a, Tensor b) = 0;
  virtual void add_scaled(Tensor y, Tensor x, double scale) = 0;

  // c [m, n] = op(a) op(b), or c += with Accumulate::yes.
  virtual void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
                      Accumulate accumulate) = 0;
  // c [m, n] = addend + op(a) op(b); c is not the addend.
  virtual void matmul_add(Tensor c, Tensor a, Transpose transpose_a, Tensor b,
                          Transpose transpose_b, Tensor addend) {
    matmul(c, a, transpose_a, b, transpose_b, Accumulate::no);
    add(c, addend, c);
  }
  // Which algorithm of its library a device takes for a shape, where it has a choice; with
  // MeasureMatmuls::yes it measures those of shapes that are not listed, at their first use, and
  // lists the fastest. Before the first matmul.
  virtual void use_matmul_choices(const std::shared_ptr<MatmulChoices>& /*choices*/,
                                  MeasureMatmuls /*measure*/) {}

  // RMSNorm over groups of K = weight size channels: y = x * rstd * weight; x [rows, G*K],
  // rstd [rows, G]. G = 1 is a block's norm, G = heads is QK-norm.
  virtual void rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor weight, double epsilon) = 0;
  virtual void rmsnorm_backward_input(Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                                      Tensor weight) = 0;
  virtual void rmsnorm_backward_weight(Tensor dweight, Tensor dy, Tensor x, Tensor rstd) = 0;

  // sum = a + b and its norm; and dx = residual + the norm's gradient with respect to x. A device
  // may do each in one pass.
  virtual void add_rmsnorm_forward(Tensor sum, Tensor y, Tensor rstd, Tensor a, Tensor b,
                                   Tensor weight, double epsilon) {
    add(sum, a, b);
    rmsnorm_forward(y, rstd, sum, weight, epsilon);
  }
  virtual void rmsnorm_backward_input_add(Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                                          Tensor weight, Tensor residual) {
    rmsnorm_backward_input(dx, dy, x, rstd, weight);
    add(dx, dx, residual);
  }
  // Both gradients: dx is set, with the residual where one is given, and dweight added to. A device
  // may do this in one pass.
  virtual void rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, Tensor rstd,
                                Tensor weight, Tensor residual) {
    residual.empty() ? rmsnorm_backward_input(dx, dy, x, rstd, weight)
                     : rmsnorm_backward_input_add(dx, dy, x, rstd, weight, residual);
    rmsnorm_backward_weight(dweight, dy, x, rstd);
  }

  // Rotary positions in place on x [rows, heads * K], half-split pairs; positions i32 [rows].
  virtual void rope(Tensor x, Tensor positions, std::int64_t head_width, double theta,
                    RopeDirection direction) = 0;

  // Causal attention inside documents: the query at position p of a sequence sees the keys of
  // positions document_start..p. q, out [B*length, Q*K]; k, v [B*key_length, kv*K]; log_sum_exp
  // [B*length, Q]; document_start i32 [B*length], never decreasing within a run.
  virtual void attention_forward(Tensor out, Tensor log_sum_exp, Tensor q, Tensor k, Tensor v,
                                 Tensor document_start, const AttentionShape& shape) = 0;
  virtual void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k,
                                  Tensor v, Tensor out, Tensor log_sum_exp, Tensor document_start,
                                  const AttentionShape& shape) = 0;

  // y = silu(gate) * up.
  virtual void swiglu_forward(Tensor y, Tensor gate, Tensor up) = 0;
  virtual void swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) = 0;

  // y [rows, D] = table [V, D] at tokens i32 [rows]; where the table is a part of the vocabulary,
  // 0 for the tokens of other parts, whose gradients go nowhere.
  virtual void embedding_forward(Tensor y, Tensor table, Tensor tokens,
                                 const TableRange& range) = 0;
  virtual void embedding_backward(Tensor dtable, Tensor dy, Tensor tokens,
                                  const TableRange& range) = 0;

  // Softmax cross-entropy in two steps, so that classes may be spread over ranks. targets i32
  // [rows], -1 where a row does not count; statistics [rows, 3] = max, sum of exp(x - max), logit
  // of the target (0 where it is not among these classes, which begin at `first_class`).
  virtual void softmax_statistics(Tensor statistics, Tensor logits, Tensor targets,
                                  std::int64_t first_class) = 0;
  // statistics [rows, 3] of all classes from those of each part, parts [n * rows, 3], part by part,
  // merged in their order: softmax statistics add up as in an online softmax.
  virtual void merge_softmax_statistics(Tensor statistics, Tensor parts) = 0;
  // losses f64 [rows]: nats of each row, 0 where it does not count.
  virtual void cross_entropy_losses(Tensor losses, Tensor statistics, Tensor targets) = 0;
  // In place: logits become scale * (softmax - one_hot), 0 in rows that do not count.
  virtual void cross_entropy_backward(Tensor logits, Tensor statistics, Tensor targets,
                                      std::int64_t first_class, const Scalar& scale) = 0;
  // All of these where all classes are here: losses and statistics are set, logits become their
  // gradient. A device may read them once.
  virtual void cross_entropy(Tensor losses, Tensor statistics, Tensor logits, Tensor targets,
                             const Scalar& scale) {
    softmax_statistics(statistics, logits, targets, 0);
    cross_entropy_losses(losses, statistics, targets);
    cross_entropy_backward(logits, statistics, targets, 0, scale);
  }

  // The dynamic convolution. y, x, dy, dx [rows, D]; dhalo is like rows.halo, or absent with it.
  virtual void conv_forward(Tensor y, Tensor x, const ConvFilters& filters, const ConvShape& shape,
                            const ConvRows& rows) = 0;
  virtual void conv_backward_input(Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy, Tensor x,
                                   const ConvFilters& filters, const ConvShape& shape,
                                   const ConvRows& rows) = 0;
  virtual void conv_backward_weight(Tensor ds, Tensor du, Tensor dy, Tensor x,
                                    const ConvFilters& filters, const ConvShape& shape,
                                    const ConvRows& rows) = 0;
  // sum = addend + what conv_forward gives; sum is not x. The gradients are those of conv_forward.
  virtual void conv_forward_add(Tensor sum, Tensor x, Tensor addend, const ConvFilters& filters,
                                const ConvShape& shape, const ConvRows& rows) {
    conv_forward(sum, x, filters, shape, rows);
    add(sum, addend, sum);
  }
  // Both backward passes at once, which a device may do in one pass over x and dy.
  virtual void conv_backward(const ConvGradients& gradients, Tensor dy, Tensor x,
                             const ConvFilters& filters, const ConvShape& shape,
                             const ConvRows& rows) {
    conv_backward_input(gradients.dx, gradients.dgenerated, gradients.dhalo, dy, x, filters, shape,
                        rows);
    conv_backward_weight(gradients.ds, gradients.du, dy, x, filters, shape, rows);
  }

  // Attention's inputs from what was projected, up to three of them. A device may do all of it in
  // one pass, where nothing between is rounded, and make again what it then does not write.
  virtual bool keeps_convolved() const { return true; }  // written by every forward operation
  virtual void attention_inputs_forward(std::span<const AttentionInput> inputs,
                                        const HeadsShape& shape);
  virtual void attention_inputs_backward(std::span<const AttentionInputGradients> gradients,
                                         std::span<const AttentionInput> inputs,
                                         const HeadsShape& shape);

  // y = silu(gate) * up of what two convolutions give; dgate and dup are the gradients of gate.y
  // and up.y. A device may make these as it needs them: for convolutions of which it keeps neither
  // they may be absent, in both operations. They are for no one else to read.
  virtual bool keeps_gate_and_up(const ConvShape& /*shape*/, std::int64_t /*channels*/,
                                 DType /*dtype*/) const {
    return true;
  }
  virtual void conv_swiglu_forward(Tensor y, const ConvolvedInput& gate, const ConvolvedInput& up,
                                   const ConvRows& rows);
  virtual void conv_swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, const ConvolvedInput& gate,
                                    const ConvolvedInput& up, const ConvRows& rows);

  // Optimizer. `control` is a StepControl, f64 on the device. sum f64 [1] += sum of x squared.
  virtual void add_sum_of_squares(Tensor sum, Tensor x) = 0;
  // The same of several tensors, which must stay where they are: a device may keep a table of them.
  virtual void add_sums_of_squares(Tensor sum, std::span<const Tensor> tensors) {
    for (const Tensor& x : tensors) add_sum_of_squares(sum, x);
  }
  virtual void decide_update(Tensor control, Tensor sum_of_squares, Tensor loss,
                             const UpdateRules& rules) = 0;
  // Where `master` is given, it is what is updated, in the gradient's dtype, and `value` its bf16
  // rounding.
  virtual void adamw(Tensor value, Tensor master, Tensor moment1, Tensor moment2, Tensor gradient,
                     Tensor control, const AdamWSettings& settings) = 0;
  // The same of several, each with its own weight decay; they must stay where they are: a device
  // may keep a table of them.
  virtual void adamw_all(std::span<const AdamWTensors> all, Tensor control,
                         const AdamWSettings& settings) {
    for (const AdamWTensors& t : all) {
      AdamWSettings own = settings;
      own.weight_decay = t.weight_decay;
      adamw(t.value, t.master, t.moment1, t.moment2, t.gradient, control, own);
    }
  }

 private:
  Trace* trace_ = nullptr;
};

}  // namespace convoy
