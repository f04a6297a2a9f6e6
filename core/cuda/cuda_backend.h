// CudaBackend: the operations on one NVIDIA GPU, in f64, f32 and bf16 (arithmetic in f32). All work
// goes in order through one stream; every sum has a fixed order, so a run gives the same bits again
// on the same kind of card with the same libraries. Parts lie in one file per family of operations.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <vector>

#include "core/backend.h"

namespace convoy {

namespace cuda {

// Memory for what lives inside one operation. Grows until the first step has run, then stays;
// operations follow each other on one stream, so each may use it from its beginning.
class Workspace {
 public:
  explicit Workspace(cudaStream_t stream) : stream_(stream) {}
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* take(std::size_t bytes);
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take(static_cast<std::size_t>(count) * sizeof(T)));
  }
  // Call first in an operation: room for `bytes` in all, starting afresh.
  void begin(std::size_t bytes);
  std::size_t capacity() const { return capacity_; }
  std::uint64_t moves() const { return moves_; }  // how often it has grown

 private:
  cudaStream_t stream_;
  std::byte* data_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0;
  std::uint64_t moves_ = 0;
};

// Pieces of tensors, listed in device memory, for kernels that take many tensors at once.
class PieceTable {
 public:
  explicit PieceTable(cudaStream_t stream) : stream_(stream) {}
  ~PieceTable();
  PieceTable(const PieceTable&) = delete;
  PieceTable& operator=(const PieceTable&) = delete;

  // Whose pieces the table lists: addresses, sizes and what else decides it.
  using Identity = std::vector<std::pair<const void*, std::int64_t>>;
  bool lists(const Identity& wanted) const { return device_ != nullptr && identity_ == wanted; }
  void fill(Identity identity, const void* pieces, std::int64_t count, std::size_t bytes_of_one);
  const void* device() const { return device_; }
  std::int64_t size() const { return size_; }
  std::uint64_t fills() const { return fills_; }

 private:
  cudaStream_t stream_;
  Identity identity_;
  void* device_ = nullptr;
  std::int64_t size_ = 0;
  std::uint64_t fills_ = 0;
};

class MatmulLibrary;
class FlashAttention;
class Staging;
class Arrivals;

}  // namespace cuda

class CudaBackend final : public Backend {
 public:
  CudaBackend(NumericsMode mode, int device, Deterministic deterministic);
  ~CudaBackend() override;

  std::string_view name() const override { return "cuda"; }
  DeviceKind device() const override { return DeviceKind::cuda; }
  cudaStream_t stream() const { return stream_; }

  void* allocate_zeroed(std::size_t bytes) override;
  void deallocate(void* data, std::size_t bytes) noexcept override;
  void copy(Tensor destination, Tensor source) override;
  std::unique_ptr<Arrival> copy_behind(Tensor host, Tensor source) override;
  void convert(Tensor destination, Tensor source) override;
  void fill(Tensor destination, double value) override;
  void synchronize() override;
  // By capturing the stream into a CUDA graph.
  bool can_record() const override { return true; }
  std::unique_ptr<Recording> record(const std::function<void()>& body) override;
  // Counts whatever puts memory of its own elsewhere or other pieces into it.
  std::uint64_t own_memory_version() const;
  double seconds_of(int repeats, const std::function<void()>& body) override;

  void sum(Tensor total, Tensor x) override;
  void add(Tensor y, Tensor a, Tensor b) override;
  void add_scaled(Tensor y, Tensor x, double scale) override;
  void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
              Accumulate accumulate) override;
  void matmul_add(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
                  Tensor addend) override;
  void use_matmul_choices(const std::shared_ptr<MatmulChoices>& choices,
                          MeasureMatmuls measure) override;

  void rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor weight, double epsilon) override;
  void rmsnorm_backward_input(Tensor dx, Tensor dy, Tensor x, Tensor rstd, Tensor weight) override;
  void rmsnorm_backward_weight(Tensor dweight, Tensor dy, Tensor x, Tensor rstd) override;
  void add_rmsnorm_forward(Tensor sum, Tensor y, Tensor rstd, Tensor a, Tensor b, Tensor weight,
                           double epsilon) override;
  void rmsnorm_backward_input_add(Tensor dx, Tensor dy, Tensor x, Tensor rstd, Tensor weight,
                                  Tensor residual) override;
  void rmsnorm_backward(Tensor dx, Tensor dweight, Tensor dy, Tensor x, Tensor rstd, Tensor weight,
                        Tensor residual) override;
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
  void cross_entropy(Tensor losses, Tensor statistics, Tensor logits, Tensor targets,
                     const Scalar& scale) override;

  void conv_forward(Tensor y, Tensor x, const ConvFilters& filters, const ConvShape& shape,
                    const ConvRows& rows) override;
  void conv_forward_add(Tensor sum, Tensor x, Tensor addend, const ConvFilters& filters,
                        const ConvShape& shape, const ConvRows& rows) override;
  void conv_backward_input(Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy, Tensor x,
                           const ConvFilters& filters, const ConvShape& shape,
                           const ConvRows& rows) override;
  void conv_backward_weight(Tensor ds, Tensor du, Tensor dy, Tensor x, const ConvFilters& filters,
                            const ConvShape& shape, const ConvRows& rows) override;
  void conv_backward(const ConvGradients& gradients, Tensor dy, Tensor x,
                     const ConvFilters& filters, const ConvShape& shape,
                     const ConvRows& rows) override;

  bool keeps_convolved() const override { return false; }
  void attention_inputs_forward(std::span<const AttentionInput> inputs,
                                const HeadsShape& shape) override;
  void attention_inputs_backward(std::span<const AttentionInputGradients> gradients,
                                 std::span<const AttentionInput> inputs,
                                 const HeadsShape& shape) override;
  bool keeps_gate_and_up(const ConvShape& shape, std::int64_t channels, DType dtype) const override;
  void conv_swiglu_forward(Tensor y, const ConvolvedInput& gate, const ConvolvedInput& up,
                           const ConvRows& rows) override;
  void conv_swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, const ConvolvedInput& gate,
                            const ConvolvedInput& up, const ConvRows& rows) override;

  void add_sum_of_squares(Tensor sum, Tensor x) override;
  void add_sums_of_squares(Tensor sum, std::span<const Tensor> tensors) override;
  void decide_update(Tensor control, Tensor sum_of_squares, Tensor loss,
                     const UpdateRules& rules) override;
  void adamw(Tensor value, Tensor master, Tensor moment1, Tensor moment2, Tensor gradient,
             Tensor control, const AdamWSettings& settings) override;
  void adamw_all(std::span<const AdamWTensors> all, Tensor control,
                 const AdamWSettings& settings) override;

 private:
  void refuse_while_recording(const char* what) const;
  void convert_on_device(Tensor destination, Tensor source);
  void convert_through_workspace(Tensor destination, Tensor source, bool from_host);
  const double* rope_frequencies(std::int64_t head_width, double theta);

  NumericsMode mode_;
  int device_;
  cudaStream_t stream_ = nullptr;
  bool recording_ = false;
  std::unique_ptr<cuda::Workspace> workspace_;
  std::unique_ptr<cuda::Staging> staging_;
  std::unique_ptr<cuda::Arrivals> arrivals_;
  std::unique_ptr<cuda::MatmulLibrary> matmul_;
  std::unique_ptr<cuda::FlashAttention> flash_;
  // Of the tensors whose squares were summed last, and of those that were updated last.
  std::unique_ptr<cuda::PieceTable> squares_, updates_;
  std::map<std::pair<std::int64_t, double>, double*> frequencies_;  // owned device memory
};

}  // namespace convoy
