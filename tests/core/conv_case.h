// A convolution with all its tensors, and the formula itself in plain loops.
#pragma once

#include <algorithm>

#include "core/conv_shape.h"
#include "tests/core/op_test_tools.h"

namespace convoy::test {

struct ConvCase {
  ConvShape shape;
  std::int64_t segments, length, channels;
  std::vector<std::int64_t> document_lengths;  // of one segment; empty: one document

  std::int64_t rows() const { return segments * length; }
  std::string name() const {
    return concat("kind ", static_cast<int>(shape.kind), " W ", shape.width, " R ",
                  shape.filter_rank, " H ", shape.head_size, " residual ", shape.residual, " of ",
                  segments, 'x', length, 'x', channels, ", documents ", document_lengths.size());
  }
  // How many rows back each row may look before its document, or the segment, starts.
  std::vector<std::int64_t> reach() const {
    std::vector<std::int64_t> one;
    for (const auto document : document_lengths) {
      for (std::int64_t i = 0; i < document; ++i) one.push_back(std::min<std::int64_t>(i, 7));
    }
    if (one.empty()) {
      for (std::int64_t i = 0; i < length; ++i) one.push_back(std::min<std::int64_t>(i, 7));
    }
    CHECK(std::ssize(one) == length, "documents of ", one.size(), " rows");
    std::vector<std::int64_t> all;
    for (std::int64_t s = 0; s < segments; ++s) all.insert(all.end(), one.begin(), one.end());
    return all;
  }
};

struct ConvTensors {
  Tensor x, dy;
  ConvFilters filters;
  ConvRows rows;

  ConvTensors(Workbench& bench, const ConvCase& c, Layout layout) {
    x = bench.random({c.rows(), c.channels}, 1, layout);
    dy = bench.random({c.rows(), c.channels}, 1, layout);
    filters.s = bench.random({c.shape.width, c.channels}, 0.1);
    if (c.shape.kind == FilterKind::lowrank) {
      filters.u = bench.random({c.shape.filter_rank, c.shape.width, c.channels}, 0.1);
    }
    const std::int64_t generated = generated_columns(c.shape, c.channels);
    if (generated > 0) filters.generated = bench.random({c.rows(), generated}, 0.1, layout);
    rows = {c.segments, c.length, bench.indices(c.reach()), {}};
  }
};

// The tap K[t, w, d] by its definition.
inline double tap(const ConvCase& c, const ConvFilters& f, std::int64_t t, int w, std::int64_t d) {
  double k = at(f.s, w, d);
  if (c.shape.kind == FilterKind::headwise) {
    k += at(f.generated, t, d / c.shape.head_size * c.shape.width + w);
  }
  if (c.shape.kind == FilterKind::lowrank) {
    for (std::int64_t r = 0; r < c.shape.filter_rank; ++r) {
      k += at(f.generated, t, r) * at(f.u, r * c.shape.width + w, d);
    }
  }
  return k;
}

struct Expected {
  double value, magnitude;  // the sum, and the sum of its terms' magnitudes
};

// y[t, d] by its definition, taps stopping at document starts.
inline Expected expected_output(const ConvCase& c, const ConvTensors& in, std::int64_t t,
                                std::int64_t d) {
  const std::int64_t reach = in.rows.reach.data<std::int32_t>()[t];
  Expected sum{0, 0};
  const auto add = [&](double term, double scale) {
    sum.value += term;
    sum.magnitude += scale;
  };
  if (c.shape.residual) add(at(in.x, t, d), std::abs(at(in.x, t, d)));
  for (int w = 0; w < c.shape.width && w <= reach; ++w) {
    const double x = at(in.x, t - w, d);
    double scale = std::abs(at(in.filters.s, w, d));
    if (c.shape.kind == FilterKind::headwise)
      scale += std::abs(tap(c, in.filters, t, w, d)) + scale;
    for (std::int64_t r = 0; r < (c.shape.kind == FilterKind::lowrank ? c.shape.filter_rank : 0);
         ++r) {
      scale +=
          std::abs(at(in.filters.generated, t, r) * at(in.filters.u, r * c.shape.width + w, d));
    }
    add(tap(c, in.filters, t, w, d) * x, scale * std::abs(x));
  }
  return sum;
}

inline std::vector<ConvCase> conv_cases() {
  using enum FilterKind;
  std::vector<ConvCase> cases;
  // Weight gradients are summed by blocks of 64 rows, and channels go by what fits a cache.
  cases.push_back({{fixed, 4, 0, 0, true}, 1, 131, 7, {64, 1, 66}});
  cases.push_back({{headwise, 2, 0, 4, true}, 2, 65, 8, {}});
  cases.push_back({{lowrank, 3, 9, 0, true}, 1, 129, 5, {127, 2}});
  cases.push_back({{lowrank, 8, 33, 0, false}, 1, 9, 53, {}});
  for (const bool residual : {true, false}) {
    for (int width = 1; width <= 8; ++width) {
      cases.push_back({{fixed, width, 0, 0, residual}, 2, 11, 7, {3, 1, 7}});
      cases.push_back({{headwise, width, 0, 3, residual}, 2, 13, 9, {1, 1, 5, 6}});
      cases.push_back({{lowrank, width, 5, 0, residual}, 1, 14, 7, {2, 1, 11}});
    }
    cases.push_back({{fixed, 4, 0, 0, residual}, 3, 1, 1, {}});
    cases.push_back({{fixed, 4, 0, 0, residual}, 1, 37, 32, {}});
    cases.push_back({{headwise, 4, 0, 16, residual}, 2, 29, 32, {17, 12}});
    cases.push_back({{headwise, 4, 0, 1, residual}, 1, 9, 5, {}});
    cases.push_back({{headwise, 3, 0, 53, residual}, 1, 19, 53, {}});
    cases.push_back({{lowrank, 4, 16, 0, residual}, 2, 31, 53, {}});
    cases.push_back({{lowrank, 4, 33, 0, residual}, 1, 13, 16, {1, 12}});
    cases.push_back({{lowrank, 4, 1, 0, residual}, 1, 25, 33, {}});
  }
  return cases;
}

}  // namespace convoy::test
