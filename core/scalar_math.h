// Formulas of one element, written once for host and device code.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define CONVOY_HOST_DEVICE __host__ __device__
#else
#define CONVOY_HOST_DEVICE
#endif

namespace convoy {

// e^x without branches, so that loops over it become vector code; exactly 0 below e^-87.
// Relative error below 2e-7: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial of degree 6 in r.
CONVOY_HOST_DEVICE inline float exponential(float x) {
#if defined(__CUDA_ARCH__)
  return expf(x);
#else
  const float clamped = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float shifted = clamped * 1.44269504088896341f + 12582912.0f;  // rounds to an integer
  const float n = shifted - 12582912.0f;
  const float r = (clamped - n * 0.693145751953125f) - n * 1.42860682030941723e-6f;
  float p = 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto exponent = (std::bit_cast<std::int32_t>(shifted) - 0x4b400000) * (1 << 23);
  const float scaled = std::bit_cast<float>(std::bit_cast<std::int32_t>(p) + exponent);
  return x < -87.0f ? 0.0f : (x > 88.0f ? INFINITY : (x == x ? scaled : x));
#endif
}
CONVOY_HOST_DEVICE inline double exponential(double x) { return exp(x); }

template <class T>
CONVOY_HOST_DEVICE T sigmoid(T x) {
  return T(1) / (T(1) + exponential(-x));
}

template <class T>
CONVOY_HOST_DEVICE T silu(T x) {
  return x * sigmoid(x);
}

// d silu(x) / dx.
template <class T>
CONVOY_HOST_DEVICE T silu_gradient(T x) {
  const T s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

// One AdamW update (Loshchilov and Hutter 2019): decoupled decay, bias correction, epsilon outside
// the root. `correction` = 1 / (1 - beta^t).
template <class T>
CONVOY_HOST_DEVICE void adamw_element(T& value, T& moment1, T& moment2, T gradient, T beta1,
                                      T beta2, T epsilon, T weight_decay, T learning_rate,
                                      T correction1, T correction2) {
  moment1 = beta1 * moment1 + (T(1) - beta1) * gradient;
  moment2 = beta2 * moment2 + (T(1) - beta2) * gradient * gradient;
  const T update = moment1 * correction1 / (T(sqrt(moment2 * correction2)) + epsilon);
  value -= learning_rate * (update + weight_decay * value);
}

}  // namespace convoy
