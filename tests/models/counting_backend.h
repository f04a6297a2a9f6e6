// CountingBackend: the CPU in plain f64 loops that count every multiply-add they do. What counts:
// matmuls, the visible pairs of attention, the taps of convolutions (also those that meet the zeros
// before a window). Norms, rotation, softmax, the sums of residuals and of taps do not.
#pragma once

#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_backend.h"

namespace convoy::test {

class CountingBackend final : public CpuBackend {
 public:
  CountingBackend() : CpuBackend(NumericsMode::invariant) {}

  struct MultiplyAdds {
    std::int64_t matmul = 0, attention = 0, conv = 0;
    std::int64_t total() const { return matmul + attention + conv; }
  };
  const MultiplyAdds& counted() const { return counted_; }

  void matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
              Accumulate accumulate) override {
    const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
    const std::int64_t inner = ta ? a.rows() : a.cols();
    for (std::int64_t i = 0; i < c.rows(); ++i) {
      for (std::int64_t j = 0; j < c.cols(); ++j) {
        double sum = accumulate == Accumulate::yes ? at(c, i, j) : 0;
        for (std::int64_t k = 0; k < inner; ++k) {
          sum += (ta ? at(a, k, i) : at(a, i, k)) * (tb ? at(b, j, k) : at(b, k, j));
          ++counted_.matmul;
        }
        at(c, i, j) = sum;
      }
    }
  }

  void attention_forward(Tensor out, Tensor /*log_sum_exp*/, Tensor q, Tensor k, Tensor v,
                         Tensor document_start, const AttentionShape& shape) override {
    const std::int64_t group = shape.query_heads / shape.kv_heads;
    for (std::int64_t row = 0; row < q.rows(); ++row) {
      const std::int64_t sequence = row / shape.length * shape.length;
      const std::int64_t first = sequence + document_start.data<std::int32_t>()[row];
      for (std::int64_t head = 0; head < shape.query_heads; ++head) {
        const std::int64_t own = head * shape.head_width, shared = head / group * shape.head_width;
        attend(out, q, k, v, {row, first, own, shared, shape.head_width});
      }
    }
  }

  void conv_forward(Tensor y, Tensor x, const ConvFilters& filters, const ConvShape& shape,
                    const ConvRows& rows) override {
    CHECK(rows.part == ConvPart::all && rows.halo.empty(), "one rank has no halo");
    for (std::int64_t row = 0; row < x.rows(); ++row) {
      for (std::int64_t d = 0; d < x.cols(); ++d) {
        double sum = shape.residual ? at(x, row, d) : 0;
        for (int w = 0; w < shape.width; ++w) {
          const bool inside = w <= rows.reach.data<std::int32_t>()[row];
          sum += tap(filters, shape, row, d, w) * (inside ? at(x, row - w, d) : 0);
          ++counted_.conv;
        }
        at(y, row, d) = sum;
      }
    }
  }

 private:
  struct Query {
    std::int64_t row, first_key, column, key_column, width;
  };

  static double& at(const Tensor& t, std::int64_t i, std::int64_t j) { return t.row<double>(i)[j]; }

  void attend(const Tensor& out, const Tensor& q, const Tensor& k, const Tensor& v,
              const Query& query) {
    std::vector<double> weights;
    for (std::int64_t key = query.first_key; key <= query.row; ++key) {
      double score = 0;
      for (std::int64_t i = 0; i < query.width; ++i) {
        score += at(q, query.row, query.column + i) * at(k, key, query.key_column + i);
        ++counted_.attention;
      }
      weights.push_back(score / std::sqrt(static_cast<double>(query.width)));
    }
    const double top = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - top);
    for (std::int64_t i = 0; i < query.width; ++i) {
      double value = 0;
      for (std::int64_t key = query.first_key; key <= query.row; ++key) {
        value += weights[static_cast<std::size_t>(key - query.first_key)] *
                 at(v, key, query.key_column + i);
        ++counted_.attention;
      }
      at(out, query.row, query.column + i) = value / sum;
    }
  }

  double tap(const ConvFilters& filters, const ConvShape& shape, std::int64_t row, std::int64_t d,
             int w) {
    double value = at(filters.s, w, d);
    if (shape.kind == FilterKind::headwise) {
      value += at(filters.generated, row, d / shape.head_size * shape.width + w);
    }
    if (shape.kind != FilterKind::lowrank) return value;
    for (std::int64_t r = 0; r < shape.filter_rank; ++r) {
      value += at(filters.generated, row, r) * at(filters.u, r * shape.width + w, d);
      ++counted_.conv;
    }
    return value;
  }

  MultiplyAdds counted_;
};

}  // namespace convoy::test
