// The convolution's entry points and its static gradient.
#include "core/cpu/conv.h"

#include <algorithm>

#include "core/cpu/conv_rows.h"
#include "core/cpu/cpu_backend.h"
#include "core/cpu/simd.h"

namespace convoy {

namespace cpu {
namespace {

template <class T>
void add_products(T* __restrict sum, const T* __restrict a, const T* __restrict b,
                  std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) sum[j] += a[j] * b[j];
}

}  // namespace

void conv_backward_s(const ConvCall& call, Tensor ds, Tensor dy, Tensor x) {
  constexpr std::int64_t kBlock = 64;  // rows summed before they are added to the gradient
  dispatch_real(x.dtype(), [&]<class T>() {
    const std::int64_t channels = x.cols();
    call.scratch.reset();
    T* zeros = call.scratch.take<T>(channels);
    T* sum = call.scratch.take<T>(channels);
    std::fill(zeros, zeros + channels, T(0));
    const TapRows<T> sources(x, call.rows.halo, call.rows, call.shape.width, zeros);
    for (std::int64_t begin = 0; begin < x.rows(); begin += kBlock) {
      const std::int64_t end = std::min(begin + kBlock, x.rows());
      for (int w = 0; w < call.shape.width; ++w) {
        std::fill(sum, sum + channels, T(0));
        for (std::int64_t t = begin; t < end; ++t) {
          const T* source = sources.at(t, w);
          add_products(sum, dy.row<T>(t), source, channels);
        }
        T* gradient = ds.row<T>(w);
        for (std::int64_t j = 0; j < channels; ++j) gradient[j] += sum[j];
      }
    }
  });
}

}  // namespace cpu

void CpuBackend::conv_forward(Tensor y, Tensor x, const ConvFilters& filters,
                              const ConvShape& shape, const ConvRows& rows) {
  const cpu::ConvCall call{scratch_, filters, shape, rows};
  if (shape.kind == FilterKind::lowrank) return cpu::lowrank_conv_forward(call, y, x);
  cpu::direct_conv_forward(call, y, x);
}

void CpuBackend::conv_backward_input(Tensor dx, Tensor dgenerated, Tensor dhalo, Tensor dy,
                                     Tensor x, const ConvFilters& filters, const ConvShape& shape,
                                     const ConvRows& rows) {
  const cpu::ConvCall call{scratch_, filters, shape, rows};
  if (!dhalo.empty() && rows.part != ConvPart::interior) fill(dhalo, 0);
  if (shape.kind == FilterKind::lowrank) {
    return cpu::lowrank_conv_backward_input(call, dx, dgenerated, dhalo, dy, x);
  }
  cpu::direct_conv_backward_input(call, dx, dgenerated, dhalo, dy, x);
}

void CpuBackend::conv_backward_weight(Tensor ds, Tensor du, Tensor dy, Tensor x,
                                      const ConvFilters& filters, const ConvShape& shape,
                                      const ConvRows& rows) {
  const cpu::ConvCall call{scratch_, filters, shape, rows};
  cpu::conv_backward_s(call, ds, dy, x);
  if (shape.kind == FilterKind::lowrank) cpu::lowrank_conv_backward_u(call, du, dy, x);
}

}  // namespace convoy
