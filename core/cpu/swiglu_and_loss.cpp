#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "core/cpu/simd.h"
#include "core/scalar_math.h"

namespace convoy {

namespace {

template <class T>
void swiglu_row(T* __restrict y, const T* __restrict gate, const T* __restrict up,
                std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) y[j] = silu(gate[j]) * up[j];
}

template <class T>
void swiglu_backward_row(T* __restrict dgate, T* __restrict dup, const T* __restrict dy,
                         const T* __restrict gate, const T* __restrict up, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) {
    const T s = sigmoid(gate[j]);
    dup[j] = dy[j] * gate[j] * s;
    dgate[j] = dy[j] * up[j] * s * (T(1) + gate[j] * (T(1) - s));
  }
}

}  // namespace

void CpuBackend::swiglu_forward(Tensor y, Tensor gate, Tensor up) {
  dispatch_real(y.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < y.rows(); ++i) {
      swiglu_row(y.row<T>(i), gate.row<T>(i), up.row<T>(i), y.cols());
    }
  });
}

void CpuBackend::swiglu_backward(Tensor dgate, Tensor dup, Tensor dy, Tensor gate, Tensor up) {
  dispatch_real(dy.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < dy.rows(); ++i) {
      swiglu_backward_row(dgate.row<T>(i), dup.row<T>(i), dy.row<T>(i), gate.row<T>(i),
                          up.row<T>(i), dy.cols());
    }
  });
}

void CpuBackend::embedding_forward(Tensor y, Tensor table, Tensor tokens) {
  const auto* token = tokens.data<std::int32_t>();
  dispatch_real(y.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < y.rows(); ++i) {
      CHECK(token[i] >= 0 && token[i] < table.rows(), "token ", token[i], " at row ", i,
            " is outside the vocabulary of ", table.rows());
      std::copy_n(table.row<T>(token[i]), y.cols(), y.row<T>(i));
    }
  });
}

void CpuBackend::embedding_backward(Tensor dtable, Tensor dy, Tensor tokens) {
  const auto* token = tokens.data<std::int32_t>();
  dispatch_real(dy.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < dy.rows(); ++i) {
      T* gradient = dtable.row<T>(token[i]);
      const T* d = dy.row<T>(i);
      for (std::int64_t j = 0; j < dy.cols(); ++j) gradient[j] += d[j];
    }
  });
}

namespace {

// Sum of exp(x - shift) in a fixed order: one running sum per lane.
template <class T>
T sum_of_exponentials(const T* x, std::int64_t count, T shift) {
  constexpr int kWays = 16;
  T sums[kWays] = {};
  std::int64_t j = 0;
  for (; j + kWays <= count; j += kWays) {
    for (int way = 0; way < kWays; ++way) sums[way] += exponential(x[j + way] - shift);
  }
  for (int way = 0; j < count; ++j, ++way) sums[way] += exponential(x[j] - shift);
  T total = 0;
  for (const T sum : sums) total += sum;
  return total;
}

template <class T>
T largest(const T* x, std::int64_t count) {
  constexpr int kWays = 16;
  T best[kWays];
  std::fill(best, best + kWays, x[0]);
  std::int64_t j = 0;
  for (; j + kWays <= count; j += kWays) {
    for (int way = 0; way < kWays; ++way) best[way] = std::max(best[way], x[j + way]);
  }
  for (; j < count; ++j) best[0] = std::max(best[0], x[j]);
  return *std::max_element(best, best + kWays);
}

// Turns logits into factor * exp(logit - shift).
template <class T>
void scaled_exponentials(T* __restrict x, std::int64_t count, T shift, T factor) {
  for (std::int64_t j = 0; j < count; ++j) x[j] = exponential(x[j] - shift) * factor;
}

}  // namespace

void CpuBackend::softmax_statistics(Tensor statistics, Tensor logits, Tensor targets,
                                    std::int64_t first_class) {
  const auto* target = targets.data<std::int32_t>();
  dispatch_real(logits.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < logits.rows(); ++i) {
      const T* row = logits.row<T>(i);
      T* out = statistics.row<T>(i);
      out[0] = largest(row, logits.cols());
      out[1] = sum_of_exponentials(row, logits.cols(), out[0]);
      const std::int64_t column = target[i] - first_class;
      out[2] = target[i] >= 0 && column >= 0 && column < logits.cols() ? row[column] : T(0);
    }
  });
}

void CpuBackend::cross_entropy_losses(Tensor losses, Tensor statistics, Tensor targets) {
  const auto* target = targets.data<std::int32_t>();
  auto* loss = losses.data<double>();
  dispatch_real(statistics.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < statistics.rows(); ++i) {
      const T* s = statistics.row<T>(i);
      loss[i] = target[i] < 0 ? 0.0
                              : std::log(static_cast<double>(s[1])) + static_cast<double>(s[0]) -
                                    static_cast<double>(s[2]);
    }
  });
}

void CpuBackend::cross_entropy_backward(Tensor logits, Tensor statistics, Tensor targets,
                                        std::int64_t first_class, double scale) {
  const auto* target = targets.data<std::int32_t>();
  dispatch_real(logits.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < logits.rows(); ++i) {
      T* row = logits.row<T>(i);
      if (target[i] < 0) {
        std::fill(row, row + logits.cols(), T(0));
        continue;
      }
      const T shift = statistics.row<T>(i)[0];
      const T factor = static_cast<T>(scale) / statistics.row<T>(i)[1];
      scaled_exponentials(row, logits.cols(), shift, factor);
      const std::int64_t column = target[i] - first_class;
      if (column >= 0 && column < logits.cols()) row[column] -= static_cast<T>(scale);
    }
  });
}

}  // namespace convoy
