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

void CpuBackend::embedding_forward(Tensor y, Tensor table, Tensor tokens, const TableRange& range) {
  const auto* token = tokens.data<std::int32_t>();
  dispatch_real(y.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < y.rows(); ++i) {
      CHECK(token[i] >= 0 && token[i] < range.total, "token ", token[i], " at row ", i,
            " is outside the vocabulary of ", range.total);
      const std::int64_t row = token[i] - range.first;
      if (row >= 0 && row < table.rows()) {
        std::copy_n(table.row<T>(row), y.cols(), y.row<T>(i));
      } else {
        std::fill_n(y.row<T>(i), y.cols(), T(0));
      }
    }
  });
}

void CpuBackend::embedding_backward(Tensor dtable, Tensor dy, Tensor tokens,
                                    const TableRange& range) {
  const auto* token = tokens.data<std::int32_t>();
  dispatch_real(dy.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < dy.rows(); ++i) {
      const std::int64_t row = token[i] - range.first;
      if (row < 0 || row >= dtable.rows()) continue;
      T* gradient = dtable.row<T>(row);
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

// A part's sum counts exp(x - its own maximum); they are brought to the common one.
void CpuBackend::merge_softmax_statistics(Tensor statistics, Tensor parts) {
  dispatch_real(statistics.dtype(), [&]<class T>() {
    const std::int64_t rows = statistics.rows();
    for (std::int64_t i = 0; i < rows; ++i) {
      T maximum = parts.row<T>(i)[0], sum = 0, target = 0;
      for (std::int64_t p = i; p < parts.rows(); p += rows) {
        maximum = std::max(maximum, parts.row<T>(p)[0]);
      }
      for (std::int64_t p = i; p < parts.rows(); p += rows) {
        const T* part = parts.row<T>(p);
        sum += part[1] * exponential(part[0] - maximum);
        target += part[2];
      }
      T* out = statistics.row<T>(i);
      out[0] = maximum;
      out[1] = sum;
      out[2] = target;
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
                                        std::int64_t first_class, const Scalar& scale_now) {
  const auto* target = targets.data<std::int32_t>();
  const double scale = scale_now.read();
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
