// Square matrices of a handful of rows: what a covariance of five parameters needs.
#pragma once

#include <optional>
#include <span>
#include <vector>

namespace convoy {

class SmallMatrix {
 public:
  explicit SmallMatrix(std::size_t size) : size_(size), values_(size * size) {}

  std::size_t size() const { return size_; }
  double& operator()(std::size_t i, std::size_t j) { return values_[i * size_ + j]; }
  double operator()(std::size_t i, std::size_t j) const { return values_[i * size_ + j]; }

  void add_outer(std::span<const double> v, double weight);  // += weight v v^T
  void scale(double factor);

 private:
  std::size_t size_;
  std::vector<double> values_;
};

// a^T M b
double product(std::span<const double> a, const SmallMatrix& m, std::span<const double> b);

// The x of M x = b for a symmetric positive definite M, by Cholesky after scaling the diagonal to
// 1; nothing where M is singular to working precision.
std::optional<std::vector<double>> solve(const SmallMatrix& m, std::span<const double> b);

std::optional<SmallMatrix> inverse(const SmallMatrix& m);

}  // namespace convoy
