#include <algorithm>
#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "core/cpu/simd.h"

namespace convoy {
namespace {

template <class T>
void scale_row(T* __restrict y, const T* __restrict x, const T* __restrict weight, T rstd,
               std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) y[j] = x[j] * rstd * weight[j];
}

// dx = rstd (w dy - n mean(w dy n)) with n = x rstd.
template <class T>
void backward_row(T* __restrict dx, const T* __restrict dy, const T* __restrict x,
                  const T* __restrict weight, T* __restrict weighted, T rstd, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) weighted[j] = weight[j] * dy[j];
  const T mean = cpu::dot<T>(weighted, x, count) * rstd / static_cast<T>(count);
  for (std::int64_t j = 0; j < count; ++j) dx[j] = rstd * (weighted[j] - x[j] * rstd * mean);
}

template <class T>
void add_weight_gradient(T* __restrict sum, const T* __restrict dy, const T* __restrict x, T rstd,
                         std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) sum[j] += dy[j] * x[j] * rstd;
}

// Turns the pairs (j, j + half) of one head.
template <class T>
void rotate_head(T* __restrict first, T* __restrict second, const T* __restrict cosine,
                 const T* __restrict sine, std::int64_t half) {
  for (std::int64_t j = 0; j < half; ++j) {
    const T a = first[j];
    const T b = second[j];
    first[j] = a * cosine[j] - b * sine[j];
    second[j] = b * cosine[j] + a * sine[j];
  }
}

}  // namespace

void CpuBackend::rmsnorm_forward(Tensor y, Tensor rstd, Tensor x, Tensor weight, double epsilon) {
  dispatch_real(x.dtype(), [&]<class T>() {
    const std::int64_t width = weight.size();
    const T* w = weight.data<T>();
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      for (std::int64_t g = 0; g < rstd.cols(); ++g) {
        const T* in = x.row<T>(i) + g * width;
        T* out = y.row<T>(i) + g * width;
        const T mean = cpu::dot(in, in, width) / static_cast<T>(width);
        const T r = T(1) / std::sqrt(mean + static_cast<T>(epsilon));
        rstd.row<T>(i)[g] = r;
        scale_row(out, in, w, r, width);
      }
    }
  });
}

void CpuBackend::rmsnorm_backward_input(Tensor dx, Tensor dy, Tensor x, Tensor rstd,
                                        Tensor weight) {
  dispatch_real(x.dtype(), [&]<class T>() {
    const std::int64_t width = weight.size();
    const T* w = weight.data<T>();
    scratch_.reset();
    T* weighted = scratch_.take<T>(width);
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      for (std::int64_t g = 0; g < rstd.cols(); ++g) {
        backward_row(dx.row<T>(i) + g * width, dy.row<T>(i) + g * width, x.row<T>(i) + g * width, w,
                     weighted, rstd.row<T>(i)[g], width);
      }
    }
  });
}

void CpuBackend::rmsnorm_backward_weight(Tensor dweight, Tensor dy, Tensor x, Tensor rstd) {
  dispatch_real(x.dtype(), [&]<class T>() {
    const std::int64_t width = dweight.size();
    constexpr std::int64_t kBlock = 64;  // rows summed before they are added to the gradient
    scratch_.reset();
    T* sum = scratch_.take<T>(width);
    for (std::int64_t begin = 0; begin < x.rows(); begin += kBlock) {
      std::fill(sum, sum + width, T(0));
      for (std::int64_t i = begin; i < std::min(begin + kBlock, x.rows()); ++i) {
        for (std::int64_t g = 0; g < rstd.cols(); ++g) {
          add_weight_gradient(sum, dy.row<T>(i) + g * width, x.row<T>(i) + g * width,
                              rstd.row<T>(i)[g], width);
        }
      }
      T* gradient = dweight.data<T>();
      for (std::int64_t j = 0; j < width; ++j) gradient[j] += sum[j];
    }
  });
}

// Su et al., arXiv 2104.09864: pair (j, j + K/2) of position p turns by p * theta^(-2j/K).
void CpuBackend::rope(Tensor x, Tensor positions, std::int64_t head_width, double theta,
                      RopeDirection direction) {
  dispatch_real(x.dtype(), [&]<class T>() {
    const std::int64_t half = head_width / 2;
    const double sign = direction == RopeDirection::forward ? 1.0 : -1.0;
    const auto* position = positions.data<std::int32_t>();
    const std::int32_t last =
        positions.size() == 0 ? 0 : *std::max_element(position, position + positions.size());
    scratch_.reset();
    T* cosine = scratch_.take<T>((last + 1) * half);
    T* sine = scratch_.take<T>((last + 1) * half);
    for (std::int64_t p = 0; p <= last; ++p) {
      for (std::int64_t j = 0; j < half; ++j) {
        const double angle =
            static_cast<double>(p) *
            std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(head_width));
        cosine[p * half + j] = static_cast<T>(std::cos(angle));
        sine[p * half + j] = static_cast<T>(sign * std::sin(angle));
      }
    }
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      const T* c = cosine + position[i] * half;
      const T* s = sine + position[i] * half;
      for (std::int64_t head = 0; head < x.cols(); head += head_width) {
        T* first = x.row<T>(i) + head;
        rotate_head(first, first + half, c, s, half);
      }
    }
  });
}

}  // namespace convoy
