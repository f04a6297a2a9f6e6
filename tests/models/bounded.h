// A number, and a bound on how far any computation of it in dtype D may lie from it: each operation
// passes on the errors of its operands and adds its own roundings (Higham, Accuracy and Stability,
// 3.3). Each rounding counts for the code under test in D and for the reference in f64, and a sum
// of n terms has n of them, whatever its order.
#pragma once

#include <cmath>
#include <vector>

#include "core/dtype.h"

namespace convoy::test {

template <DType D>
struct Bounded {
  static constexpr double kUnit = unit_roundoff(D) + unit_roundoff(DType::f64);

  double value = 0;
  double error = 0;

  // A number that both sides hold exactly.
  static Bounded exact(double x) { return {x, 0}; }
  // A result computed with `roundings` roundings from operands whose errors came to `passed_on`.
  static Bounded rounded(double x, double passed_on, double roundings = 1) {
    return {x, passed_on + roundings * kUnit * (std::abs(x) + passed_on)};
  }
  double most() const { return std::abs(value) + error; }
};

template <DType D>
Bounded<D> operator+(const Bounded<D>& a, const Bounded<D>& b) {
  return Bounded<D>::rounded(a.value + b.value, a.error + b.error);
}

template <DType D>
Bounded<D> operator-(const Bounded<D>& a, const Bounded<D>& b) {
  return Bounded<D>::rounded(a.value - b.value, a.error + b.error);
}

template <DType D>
Bounded<D> operator*(const Bounded<D>& a, const Bounded<D>& b) {
  return Bounded<D>::rounded(a.value * b.value, a.most() * b.error + b.most() * a.error);
}

template <DType D>
Bounded<D> operator/(const Bounded<D>& a, const Bounded<D>& b) {
  const double quotient = a.value / b.value;
  const double least = std::abs(b.value) - b.error;  // of the divisor, which must not reach 0
  return Bounded<D>::rounded(quotient, (a.error + std::abs(quotient) * b.error) / least);
}

// In any order: each rounding is one of a partial sum, at most the sum of magnitudes.
template <DType D>
Bounded<D> sum_of(const std::vector<Bounded<D>>& terms) {
  Bounded<D> sum;
  double magnitude = 0;
  for (const auto& term : terms) {
    sum.value += term.value;
    sum.error += term.error;
    magnitude += term.most();
  }
  sum.error += static_cast<double>(terms.size()) * Bounded<D>::kUnit * magnitude;
  return sum;
}

template <DType D>
Bounded<D> dot_of(const std::vector<Bounded<D>>& a, const std::vector<Bounded<D>>& b) {
  std::vector<Bounded<D>> terms;
  for (std::size_t i = 0; i < a.size(); ++i) terms.push_back(a[i] * b[i]);
  return sum_of(terms);
}

template <DType D>
Bounded<D> root_of(const Bounded<D>& x) {
  const double root = std::sqrt(x.value);
  return Bounded<D>::rounded(root, x.error / (2 * std::sqrt(x.value - x.error)));
}

// exponential() is within five roundings of e^x.
template <DType D>
Bounded<D> exp_of(const Bounded<D>& x) {
  const double e = std::exp(x.value);
  return Bounded<D>::rounded(e, e * std::expm1(x.error), 5);
}

template <DType D>
Bounded<D> log_of(const Bounded<D>& x) {
  return Bounded<D>::rounded(std::log(x.value), x.error / (x.value - x.error));
}

}  // namespace convoy::test
