// Static and head-wise filters: a row's taps are known without a product, so each row is one pass
// over its channels.
#include <algorithm>

#include "core/conv_shape.h"
#include "core/cpu/conv.h"
#include "core/cpu/conv_rows.h"
#include "core/cpu/simd.h"

namespace convoy::cpu {
namespace {

// Calls function.template operator()<W>() for the run-time width.
template <class Function>
void dispatch_width(int width, Function&& function) {
  switch (width) {
    case 1: return function.template operator()<1>();
    case 2: return function.template operator()<2>();
    case 3: return function.template operator()<3>();
    case 4: return function.template operator()<4>();
    case 5: return function.template operator()<5>();
    case 6: return function.template operator()<6>();
    case 7: return function.template operator()<7>();
    case 8: return function.template operator()<8>();
    default: CHECK(false, "a convolution of ", width, " taps");
  }
}

// What a convolution call gives every row: the static taps, the residual in tap 0, and where the
// generated taps lie. A static filter is one group of all channels to which nothing is generated.
template <class T, int W>
struct RowFilters {
  const T* s[W];
  Tensor generated;
  std::int64_t channels, group;

  RowFilters(const ConvCall& call, std::int64_t channel_count)
      : generated(call.filters.generated),
        channels(channel_count),
        group(generated.empty() ? channel_count : call.shape.head_size) {
    for (int w = 0; w < W; ++w) s[w] = call.filters.s.row<T>(w);
    if (!call.shape.residual) return;
    T* first = call.scratch.take<T>(channels);
    for (std::int64_t d = 0; d < channels; ++d) first[d] = s[0][d] + T(1);
    s[0] = first;
  }

  const T* generated_row(std::int64_t row) const {
    return generated.empty() ? nullptr : generated.row<T>(row);
  }
};

// What the generator adds to the taps of one group of channels; nothing to static filters.
template <class T, int W>
struct GroupTaps {
  T added[W];

  explicit GroupTaps(const T* generated) {
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) added[w] = generated == nullptr ? T(0) : generated[w];
  }
};

template <class T, int W>
void forward_row(T* __restrict y, const T* const (&source)[W], const RowFilters<T, W>& filters,
                 const T* generated) {
  for (std::int64_t first = 0; first < filters.channels; first += filters.group) {
    const GroupTaps<T, W> taps(generated);
    const std::int64_t end = first + filters.group;
    std::int64_t d = first;
    for (; d + kLanes<T> <= end; d += kLanes<T>) {
      Vec<T> sum{};
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) {
        sum += (load(filters.s[w] + d) + taps.added[w]) * load(source[w] + d);
      }
      store<T>(y + d, sum);
    }
    for (; d < end; ++d) {
      T sum = 0;
      for (int w = 0; w < W; ++w) sum += (filters.s[w][d] + taps.added[w]) * source[w][d];
      y[d] = sum;
    }
    if (generated != nullptr) generated += W;
  }
}

constexpr int kRun = 8;  // rows of one document that go through the taps together

// kRun rows that all see W - 1 rows before them: a row of x is loaded once for all of its taps.
template <class T, int W, bool Generated>
void forward_run(Tensor y, Tensor x, std::int64_t t0, const RowFilters<T, W>& filters) {
  const std::int64_t stride = x.row_stride();
  const T* generated = filters.generated_row(t0);
  const std::int64_t generated_stride = Generated ? filters.generated.row_stride() : 0;
  for (std::int64_t first = 0; first < filters.channels; first += filters.group) {
    for (std::int64_t d = first; d < first + filters.group; d += kLanes<T>) {
      const T* source = x.row<T>(t0) + d;
      T* target = y.row<T>(t0) + d;
      Vec<T> s[W];
      Vec<T> seen[W];  // seen[w] = x[t - w]
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) s[w] = load(filters.s[w] + d);
#pragma GCC unroll 8
      for (int w = 1; w < W; ++w) seen[w - 1] = load(source - w * stride);
#pragma GCC unroll 8
      for (int i = 0; i < kRun; ++i) {
#pragma GCC unroll 8
        for (int w = W - 1; w > 0; --w) seen[w] = seen[w - 1];
        seen[0] = load(source + i * stride);
        const T* added = generated + i * generated_stride;
        Vec<T> sum{};
#pragma GCC unroll 8
        for (int w = 0; w < W; ++w) sum += (Generated ? s[w] + added[w] : s[w]) * seen[w];
        store<T>(target + i * y.row_stride(), sum);
      }
    }
    if (Generated) generated += W;
  }
}

// Whether rows t .. t + kRun - 1 lie in one segment and all see W - 1 rows before them.
bool is_run(const ConvRows& rows, std::int64_t t, int width) {
  const std::int64_t place = t % rows.length;
  if (place < width - 1 || place + kRun > rows.length) return false;
  const auto* reach = rows.reach.data<std::int32_t>() + t;
  return std::all_of(reach, reach + kRun, [&](std::int32_t r) { return r >= width - 1; });
}

template <class T, int W>
void forward(const ConvCall& call, Tensor y, Tensor x) {
  call.scratch.reset();
  T* zeros = call.scratch.take<T>(x.cols());
  std::fill(zeros, zeros + x.cols(), T(0));
  const RowFilters<T, W> filters(call, x.cols());
  const TapRows<T> sources(x, call.rows.halo, call.rows, W, zeros);
  const bool whole_vectors = filters.group % kLanes<T> == 0;
  for_each_run(call.rows, W, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end;) {
      if (whole_vectors && is_run(call.rows, t, W)) {
        if (filters.generated.empty()) {
          forward_run<T, W, false>(y, x, t, filters);
        } else {
          forward_run<T, W, true>(y, x, t, filters);
        }
        t += kRun;
        continue;
      }
      const T* source[W];
      for (int w = 0; w < W; ++w) source[w] = sources.at(t, w);
      forward_row<T, W>(y.row<T>(t), source, filters, filters.generated_row(t));
      ++t;
    }
  });
}

// One row: adds filter * dy to the rows its taps read (tap 0 sets its own row) and writes the
// gradients of what the generator added, the sums of dy * x over each group.
template <class T, int W>
void backward_row(T* const (&target)[W], T* dgenerated, const T* dy, const T* const (&source)[W],
                  const RowFilters<T, W>& filters, const T* generated) {
  for (std::int64_t first = 0; first < filters.channels; first += filters.group) {
    const GroupTaps<T, W> taps(generated);
    const std::int64_t end = first + filters.group;
    Vec<T> products[W] = {};
    T rest[W] = {};
    std::int64_t d = first;
    for (; d + kLanes<T> <= end; d += kLanes<T>) {
      const Vec<T> gradient = load(dy + d);
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) {
        const Vec<T> own = (load(filters.s[w] + d) + taps.added[w]) * gradient;
        store<T>(target[w] + d, w == 0 ? own : load(target[w] + d) + own);
        products[w] += gradient * load(source[w] + d);
      }
    }
    for (; d < end; ++d) {
      for (int w = 0; w < W; ++w) {
        const T own = (filters.s[w][d] + taps.added[w]) * dy[d];
        target[w][d] = w == 0 ? own : target[w][d] + own;
        rest[w] += dy[d] * source[w][d];
      }
    }
    if (generated == nullptr) continue;
    for (int w = 0; w < W; ++w) dgenerated[w] = sum_lanes<T>(products[w]) + rest[w];
    generated += W;
    dgenerated += W;
  }
}

template <class T, int W>
void backward_input(const ConvCall& call, Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy,
                    Tensor x) {
  const std::int64_t channels = x.cols();
  call.scratch.reset();
  T* zeros = call.scratch.take<T>(channels);
  T* nowhere = call.scratch.take<T>(channels);
  std::fill(zeros, zeros + channels, T(0));
  std::fill(nowhere, nowhere + channels, T(0));
  const RowFilters<T, W> filters(call, channels);
  const TapRows<T> sources(x, call.rows.halo, call.rows, W, zeros);
  const TapRows<T> targets(dx, dhalo, call.rows, W, nowhere);
  // Rows ascend within each segment, also where the boundary is a call of its own.
  for_each_run(call.rows, W, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const T* source[W];
      T* target[W];
      for (int w = 0; w < W; ++w) source[w] = sources.at(t, w);
      for (int w = 0; w < W; ++w) target[w] = targets.at(t, w);
      backward_row<T, W>(target, dgenerated.empty() ? nullptr : dgenerated.row<T>(t), dy.row<T>(t),
                         source, filters, filters.generated_row(t));
    }
  });
}

}  // namespace

void direct_conv_forward(const ConvCall& call, Tensor y, Tensor x) {
  dispatch_real(x.dtype(), [&]<class T>() {
    dispatch_width(call.shape.width, [&]<int W>() { forward<T, W>(call, y, x); });
  });
}

void direct_conv_backward_input(const ConvCall& call, Tensor dx, Tensor dgenerated, Tensor dhalo,
                                Tensor dy, Tensor x) {
  dispatch_real(x.dtype(), [&]<class T>() {
    dispatch_width(call.shape.width,
                   [&]<int W>() { backward_input<T, W>(call, dx, dgenerated, dhalo, dy, x); });
  });
}

}  // namespace convoy::cpu
