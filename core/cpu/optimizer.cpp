#include <cmath>

#include "core/cpu/cpu_backend.h"
#include "core/cpu/simd.h"
#include "core/scalar_math.h"
#include "core/update_decision.h"

namespace convoy {

void CpuBackend::add_sum_of_squares(Tensor sum, Tensor x) {
  CHECK(x.contiguous(), "sum of squares of a strided ", x.describe());
  dispatch_real(x.dtype(), [&]<class T>() {
    constexpr std::int64_t kBlock = 4096;  // blocks are summed in f64
    const T* data = x.data<T>();
    double total = 0;
    for (std::int64_t begin = 0; begin < x.size(); begin += kBlock) {
      const std::int64_t count = std::min(kBlock, x.size() - begin);
      total += static_cast<double>(cpu::dot(data + begin, data + begin, count));
    }
    *sum.data<double>() += total;
  });
}

void CpuBackend::decide_update(Tensor control, Tensor sum_of_squares, Tensor loss,
                               const UpdateRules& rules) {
  decide_update_element(control.data<double>(), *sum_of_squares.data<double>(),
                        *loss.data<double>(), rules);
}

void CpuBackend::adamw(Tensor value, Tensor master, Tensor moment1, Tensor moment2, Tensor gradient,
                       Tensor control, const AdamWSettings& settings) {
  const double* c = control.data<double>();
  if (c[StepControl::skip] != 0) return;
  const Tensor exact = master.empty() ? value : master;
  dispatch_real(exact.dtype(), [&]<class T>() {
    const T correction1 =
        static_cast<T>(1.0 / (1.0 - std::pow(settings.beta1, c[StepControl::adam_steps])));
    const T correction2 =
        static_cast<T>(1.0 / (1.0 - std::pow(settings.beta2, c[StepControl::adam_steps])));
    const T rate = static_cast<T>(c[StepControl::learning_rate]);
    const T scale = static_cast<T>(c[StepControl::update_scale]);
    T* x = exact.data<T>();
    T* m = moment1.data<T>();
    T* v = moment2.data<T>();
    const T* g = gradient.data<T>();
    for (std::int64_t i = 0; i < value.size(); ++i) {
      adamw_element(x[i], m[i], v[i], g[i] * scale, static_cast<T>(settings.beta1),
                    static_cast<T>(settings.beta2), static_cast<T>(settings.epsilon),
                    static_cast<T>(settings.weight_decay), rate, correction1, correction2);
    }
  });
  if (!master.empty()) convert(value, master);
}

}  // namespace convoy
