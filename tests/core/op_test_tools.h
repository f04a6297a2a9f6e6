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
        arena_(*backend_, "test", std::size_t{24} << 20) {}

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

inline double largest(const Tensor& t) {
  double top = 0;
  for (const double value : values(t)) top = std::max(top, std::abs(value));
  return top;
}

// A bound for a sum of `terms` products whose magnitudes add up to `magnitude`, each rounded a few
// times: |error| <= (terms + 8) u magnitude (Higham, Accuracy and Stability, 3.1).
inline double sum_bound(DType dtype, std::int64_t terms, double magnitude) {
  return static_cast<double>(terms + 8) * unit_roundoff(dtype) * magnitude;
}

// Terms of a loss: each element of an output, weighted.
using LossTerms = std::function<std::vector<double>()>;

// The slope of a sum of terms between two places, and what rounding may add to it: only terms that
// moved count, each a sum of up to `terms` products of about its size or 1.
struct Slope {
  double value = 0, error = 0;

  Slope(const std::vector<double>& above, const std::vector<double>& below, double distance,
        std::int64_t terms) {
    for (std::size_t i = 0; i < above.size(); ++i) {
      if (above[i] == below[i]) continue;
      value += (above[i] - below[i]) / distance;
      error += sum_bound(DType::f64, terms, 2 + std::abs(above[i]) + std::abs(below[i])) / distance;
    }
  }
};

// Checks d loss / d input for every element against central differences in f64. `loss` runs the
// forward pass. With h = cbrt(u) a difference is wrong by a sixth of h^2 times the third derivative
// and by the roundings over h, both of order u^(2/3). The third derivative is measured by a wide
// difference where roundings do not explain what is left, and counts six times its share.
// `cancelling`: the size of what the gradient's own formula subtracts, where that may leave
// nothing.
inline void expect_gradient(const Tensor& input, const Tensor& gradient, const LossTerms& loss,
                            const std::string& what, std::int64_t terms = 64,
                            double cancelling = 0) {
  const double u = unit_roundoff(DType::f64), h = std::cbrt(u), wide = 1.0 / 64;
  for (std::int64_t i = 0; i < input.rows(); ++i) {
    for (std::int64_t j = 0; j < input.cols(); ++j) {
      double& x = input.row<double>(i)[j];
      const double kept = x;
      const auto slope = [&](double step) {
        const double high = kept + step, low = kept - step;
        x = high;
        const auto above = loss();
        x = low;
        const auto below = loss();
        x = kept;
        return Slope(above, below, high - low, terms);
      };
      const Slope near = slope(h);
      const double found = at(gradient, i, j);
      double bound = near.error + sum_bound(DType::f64, terms, std::abs(found) + cancelling);
      if (std::abs(found - near.value) > bound) {
        // The slope over 2w exceeds that over w by half of w^2 times the third derivative.
        const double third = 2 * (slope(2 * wide).value - slope(wide).value) / (wide * wide);
        bound += h * h * std::abs(third);
      }
      ASSERT_NEAR(found, near.value, bound) << what << " at (" << i << ", " << j << ")";
    }
  }
}

inline std::vector<double> weighted_terms(const Tensor& output, const Tensor& weight) {
  std::vector<double> terms;
  for (std::int64_t i = 0; i < output.rows(); ++i) {
    for (std::int64_t j = 0; j < output.cols(); ++j) {
      terms.push_back(at(output, i, j) * at(weight, i, j));
    }
  }
  return terms;
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
