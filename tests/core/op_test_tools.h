// Tools for testing operations: tensors with memory of their own, random values, error bounds.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/cpu/cpu_backend.h"
#include "core/ops.h"
#include "core/random.h"

namespace convoy::test {

// Rows and columns; the columns may be a range of a wider matrix filled with NaN.
enum class Layout : bool { contiguous, strided };

// Owns tensors for the length of a test and counts random draws.
class Workbench {
 public:
  explicit Workbench(DType dtype = DType::f64, NumericsMode mode = NumericsMode::fast)
      : dtype_(dtype),
        backend_(make_cpu_backend(mode)),
        arena_(*backend_, "test", std::size_t{64} << 20) {}

  Context context() { return {*backend_, arena_, dtype_}; }
  Backend& backend() { return *backend_; }
  Arena& arena() { return arena_; }

  // Poisoned with NaN.
  Tensor output(std::initializer_list<std::int64_t> shape, Layout layout = Layout::contiguous) {
    if (layout == Layout::contiguous) {
      Tensor t = arena_.take(dtype_, shape);
      backend_->fill(t, std::numeric_limits<double>::quiet_NaN());
      return t;
    }
    const Tensor model(nullptr, dtype_, DeviceKind::cpu, shape);
    Tensor wide = output({model.rows(), model.cols() + 5});
    return wide.column_range(2, model.cols());
  }
  Tensor zeros(std::initializer_list<std::int64_t> shape) {
    Tensor t = output(shape);
    backend_->fill(t, 0);
    return t;
  }
  // N(0, deviation).
  Tensor random(std::initializer_list<std::int64_t> shape, double deviation = 1,
                Layout layout = Layout::contiguous) {
    Tensor t = output(shape, layout);
    const RandomStream stream(++draws_, "test");
    for_each(t, [&](std::int64_t i, std::int64_t j, double) {
      return deviation * stream.normal(static_cast<std::uint64_t>(i * t.cols() + j));
    });
    return t;
  }
  Tensor indices(const std::vector<std::int64_t>& values) {
    Tensor t = arena_.take(DType::i32, {static_cast<std::int64_t>(values.size())});
    for (std::size_t i = 0; i < values.size(); ++i) {
      t.data<std::int32_t>()[i] = static_cast<std::int32_t>(values[i]);
    }
    return t;
  }

  // Replaces each element by change(row, column, old).
  static void for_each(const Tensor& t,
                       const std::function<double(std::int64_t, std::int64_t, double)>& change) {
    dispatch_real(t.dtype(), [&]<class T>() {
      for (std::int64_t i = 0; i < t.rows(); ++i) {
        for (std::int64_t j = 0; j < t.cols(); ++j) {
          T& element = t.row<T>(i)[j];
          element = static_cast<T>(change(i, j, static_cast<double>(element)));
        }
      }
    });
  }

 private:
  DType dtype_;
  std::unique_ptr<Backend> backend_;
  Arena arena_;
  std::uint64_t draws_ = 0;
};

inline double at(const Tensor& t, std::int64_t i, std::int64_t j) {
  return t.dtype() == DType::f64 ? t.row<double>(i)[j] : static_cast<double>(t.row<float>(i)[j]);
}

inline std::vector<double> values(const Tensor& t) {
  std::vector<double> all;
  for (std::int64_t i = 0; i < t.rows(); ++i) {
    for (std::int64_t j = 0; j < t.cols(); ++j) all.push_back(at(t, i, j));
  }
  return all;
}

inline void copy_values(const Tensor& target, const Tensor& source) {
  Workbench::for_each(target,
                      [&](std::int64_t i, std::int64_t j, double) { return at(source, i, j); });
}

// A bound for a sum of `terms` products whose magnitudes add up to `magnitude`, each rounded a few
// times: |error| <= (terms + 8) u magnitude (Higham, Accuracy and Stability, 3.1).
inline double sum_bound(DType dtype, std::int64_t terms, double magnitude) {
  return static_cast<double>(terms + 8) * unit_roundoff(dtype) * magnitude;
}

// Checks d loss / d input for every element against central differences in f64. `loss` runs the
// forward pass. With h = 1e-5 the differences carry about h^2 |f'''| + u |f| / h, both near 1e-10
// for the magnitudes of these tests; 1e-7 (1 + |gradient|) leaves room for neither a wrong term.
inline void expect_gradient(const Tensor& input, const Tensor& gradient,
                            const std::function<double()>& loss, const std::string& what) {
  constexpr double kStep = 1e-5;
  for (std::int64_t i = 0; i < input.rows(); ++i) {
    for (std::int64_t j = 0; j < input.cols(); ++j) {
      double& x = input.row<double>(i)[j];
      const double kept = x;
      x = kept + kStep;
      const double above = loss();
      x = kept - kStep;
      const double below = loss();
      x = kept;
      const double expected = (above - below) / (2 * kStep);
      ASSERT_NEAR(at(gradient, i, j), expected, 1e-7 * (1 + std::abs(expected)))
          << what << " at (" << i << ", " << j << ")";
    }
  }
}

// sum over elements of weight * output: a loss whose dy is `weight`.
inline double weighted_sum(const Tensor& output, const Tensor& weight) {
  double total = 0;
  for (std::int64_t i = 0; i < output.rows(); ++i) {
    for (std::int64_t j = 0; j < output.cols(); ++j) total += at(output, i, j) * at(weight, i, j);
  }
  return total;
}

}  // namespace convoy::test
