#include "experiments/fit/small_matrix.h"

#include <cmath>

namespace convoy {
namespace {

// The lower factor of S M S, with S = diag(M)^-1/2.
std::optional<SmallMatrix> factor(const SmallMatrix& m, const std::vector<double>& s) {
  constexpr double kSingular = 1e-13;
  SmallMatrix lower(m.size());
  for (std::size_t i = 0; i < m.size(); ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = m(i, j) * s[i] * s[j];
      for (std::size_t k = 0; k < j; ++k) sum -= lower(i, k) * lower(j, k);
      if (i != j) {
        lower(i, j) = sum / lower(j, j);
        continue;
      }
      if (!(sum > kSingular)) return std::nullopt;
      lower(i, i) = std::sqrt(sum);
    }
  }
  return lower;
}

}  // namespace

void SmallMatrix::add_outer(std::span<const double> v, double weight) {
  for (std::size_t i = 0; i < size_; ++i)
    for (std::size_t j = 0; j < size_; ++j) (*this)(i, j) += weight * v[i] * v[j];
}

void SmallMatrix::scale(double factor) {
  for (double& value : values_) value *= factor;
}

double product(std::span<const double> a, const SmallMatrix& m, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < m.size(); ++i)
    for (std::size_t j = 0; j < m.size(); ++j) sum += a[i] * m(i, j) * b[j];
  return sum;
}

std::optional<std::vector<double>> solve(const SmallMatrix& m, std::span<const double> b) {
  const std::size_t n = m.size();
  std::vector<double> s(n);
  for (std::size_t i = 0; i < n; ++i) {
    if (!(m(i, i) > 0)) return std::nullopt;
    s[i] = 1 / std::sqrt(m(i, i));
  }
  const auto lower = factor(m, s);
  if (!lower) return std::nullopt;
  std::vector<double> x(n);
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = b[i] * s[i];
    for (std::size_t k = 0; k < i; ++k) x[i] -= (*lower)(i, k) * x[k];
    x[i] /= (*lower)(i, i);
  }
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t k = i + 1; k < n; ++k) x[i] -= (*lower)(k, i) * x[k];
    x[i] /= (*lower)(i, i);
  }
  for (std::size_t i = 0; i < n; ++i) x[i] *= s[i];
  return x;
}

std::optional<SmallMatrix> inverse(const SmallMatrix& m) {
  SmallMatrix result(m.size());
  for (std::size_t j = 0; j < m.size(); ++j) {
    std::vector<double> unit(m.size());
    unit[j] = 1;
    const auto column = solve(m, unit);
    if (!column) return std::nullopt;
    for (std::size_t i = 0; i < m.size(); ++i) result(i, j) = (*column)[i];
  }
  return result;
}

}  // namespace convoy
