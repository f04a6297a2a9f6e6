// A CPU that records regions as a GPU does: while it records, an operation is kept with its
// operands and not run; a replay runs what was kept, with what is in the memory by then. Memory
// that it did not allocate counts as the host's, from and to which nothing is copied inside a
// region.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/cpu/cpu_backend.h"

namespace convoy::test {

class ReplayingBackend final : public CpuBackend {
 public:
  explicit ReplayingBackend(NumericsMode mode = NumericsMode::fast) : CpuBackend(mode) {}

  int recorded() const { return recorded_; }
  int replayed() const { return replayed_; }
  // As if memory of the backend's own had moved.
  void move() { ++version_; }

  bool can_record() const override { return true; }
  std::unique_ptr<Recording> record(const std::function<void()>& body) override {
    CHECK(kept_ == nullptr, "a region inside another");
    std::vector<Operation> operations;
    struct Keeping {
      std::vector<Operation>*& kept;
      ~Keeping() { kept = nullptr; }
    } keeping{kept_};
    kept_ = &operations;
    body();
    ++recorded_;
    return std::make_unique<Replay>(*this, std::move(operations));
  }

  void* allocate_zeroed(std::size_t bytes) override {
    refuse_while_recording("memory is allocated");
    void* const data = CpuBackend::allocate_zeroed(bytes);
    own_[static_cast<const std::byte*>(data)] = bytes;
    return data;
  }
  void deallocate(void* data, std::size_t bytes) noexcept override {
    own_.erase(static_cast<const std::byte*>(data));
    CpuBackend::deallocate(data, bytes);
  }
  void synchronize() override { refuse_while_recording("the host waits"); }
  void copy(Tensor to, Tensor from) override {
    if (!is_own(to) || !is_own(from)) refuse_while_recording("values of the host are copied");
    run([=, this] { CpuBackend::copy(to, from); });
  }
  void convert(Tensor to, Tensor from) override {
    if (!is_own(to) || !is_own(from)) refuse_while_recording("values of the host are converted");
    run([=, this] { CpuBackend::convert(to, from); });
  }
  void fill(Tensor to, double value) override {
    run([=, this] { CpuBackend::fill(to, value); });
  }
  void sum(Tensor total, Tensor x) override {
    run([=, this] { CpuBackend::sum(total, x); });
  }
  void add(Tensor y, Tensor a, Tensor b) override {
    run([=, this] { CpuBackend::add(y, a, b); });
  }
  void add_scaled(Tensor y, Tensor x, double scale) override {
    run([=, this] { CpuBackend::add_scaled(y, x, scale); });
  }
  void matmul(Tensor c, Tensor a, Transpose ta, Tensor b, Transpose tb, Accumulate acc) override {
    run([=, this] { CpuBackend::matmul(c, a, ta, b, tb, acc); });
  }
  void rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor w, double epsilon) override {
    run([=, this] { CpuBackend::rmsnorm_forward(y, rstd, x, w, epsilon); });
  }
  void rmsnorm_backward_input(Tensor dx, Tensor dy, Tensor x, Tensor rstd, Tensor w) override {
    run([=, this] { CpuBackend::rmsnorm_backward_input(dx, dy, x, rstd, w); });
  }
  void rmsnorm_backward_weight(Tensor dw, Tensor dy, Tensor x, Tensor rstd) override {
    run([=, this] { CpuBackend::rmsnorm_backward_weight(dw, dy, x, rstd); });
  }
  void rope(Tensor x, Tensor positions, std::int64_t width, double theta,
            RopeDirection direction) override {
    run([=, this] { CpuBackend::rope(x, positions, width, theta, direction); });
  }
  void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor start,
                         const AttentionShape& shape) override {
    run([=, this] { CpuBackend::attention_forward(out, lse, q, k, v, start, shape); });
  }
  void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor q, Tensor k,
                          Tensor v, Tensor out, Tensor lse, Tensor start,
                          const AttentionShape& shape) override {
    run([=, this] {
      CpuBackend::attention_backward(dq, dk, dv, dout, q, k, v, out, lse, start, shape);
    });
  }
  void swiglu_forward(Tensor y, Tensor gate, Tensor up) override {
    run([=, this] { CpuBackend::swiglu_forward(y, gate, up); });
  }
  void swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) override {
    run([=, this] { CpuBackend::swiglu_backward(dgate, dup, dy, gate, up); });
  }
  void embedding_forward(Tensor y, Tensor table, Tensor tokens, const TableRange& range) override {
    run([=, this] { CpuBackend::embedding_forward(y, table, tokens, range); });
  }
  void embedding_backward(Tensor dtable, Tensor dy, Tensor tokens,
                          const TableRange& range) override {
    run([=, this] { CpuBackend::embedding_backward(dtable, dy, tokens, range); });
  }
  void softmax_statistics(Tensor statistics, Tensor logits, Tensor targets,
                          std::int64_t first) override {
    run([=, this] { CpuBackend::softmax_statistics(statistics, logits, targets, first); });
  }
  void merge_softmax_statistics(Tensor statistics, Tensor parts) override {
    run([=, this] { CpuBackend::merge_softmax_statistics(statistics, parts); });
  }
  void cross_entropy_losses(Tensor losses, Tensor statistics, Tensor targets) override {
    run([=, this] { CpuBackend::cross_entropy_losses(losses, statistics, targets); });
  }
  void cross_entropy_backward(Tensor logits, Tensor statistics, Tensor targets, std::int64_t first,
                              const Scalar& scale) override {
    run([=, this] {
      CpuBackend::cross_entropy_backward(logits, statistics, targets, first, scale);
    });
  }
  void conv_forward(Tensor y, Tensor x, const ConvFilters& filters, const ConvShape& shape,
                    const ConvRows& rows) override {
    run([=, this] { CpuBackend::conv_forward(y, x, filters, shape, rows); });
  }
  void conv_backward_input(Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy, Tensor x,
                           const ConvFilters& filters, const ConvShape& shape,
                           const ConvRows& rows) override {
    run([=, this] {
      CpuBackend::conv_backward_input(dx, dgenerated, dhalo, dy, x, filters, shape, rows);
    });
  }
  void conv_backward_weight(Tensor ds, Tensor du, Tensor dy, Tensor x, const ConvFilters& filters,
                            const ConvShape& shape, const ConvRows& rows) override {
    run([=, this] { CpuBackend::conv_backward_weight(ds, du, dy, x, filters, shape, rows); });
  }
  void add_sum_of_squares(Tensor sum, Tensor x) override {
    run([=, this] { CpuBackend::add_sum_of_squares(sum, x); });
  }
  void decide_update(Tensor control, Tensor squares, Tensor loss,
                     const UpdateRules& rules) override {
    run([=, this] { CpuBackend::decide_update(control, squares, loss, rules); });
  }
  void adamw(Tensor value, Tensor master, Tensor moment1, Tensor moment2, Tensor gradient,
             Tensor control, const AdamWSettings& settings) override {
    run([=, this] {
      CpuBackend::adamw(value, master, moment1, moment2, gradient, control, settings);
    });
  }

 private:
  using Operation = std::function<void()>;

  class Replay final : public Recording {
   public:
    Replay(ReplayingBackend& backend, std::vector<Operation> operations)
        : backend_(backend), operations_(std::move(operations)), version_(backend.version_) {}
    void replay() override {
      ++backend_.replayed_;
      for (const Operation& operation : operations_) operation();
    }
    bool is_current() const override { return version_ == backend_.version_; }
    std::string description() const override { return concat(operations_.size(), " operations"); }

   private:
    ReplayingBackend& backend_;
    std::vector<Operation> operations_;
    int version_;
  };

  void run(Operation operation) {
    if (kept_ == nullptr) return operation();
    kept_->push_back(std::move(operation));
  }
  void refuse_while_recording(const char* what) const {
    if (kept_ != nullptr) throw Error(concat("a region cannot be recorded: ", what));
  }
  bool is_own(const Tensor& t) const {
    const auto* data = static_cast<const std::byte*>(t.data());
    auto after = own_.upper_bound(data);
    if (after == own_.begin()) return false;
    --after;
    return data < after->first + after->second;
  }

  std::vector<Operation>* kept_ = nullptr;  // null: operations run
  std::map<const std::byte*, std::size_t> own_;
  int recorded_ = 0, replayed_ = 0, version_ = 0;
};

}  // namespace convoy::test
