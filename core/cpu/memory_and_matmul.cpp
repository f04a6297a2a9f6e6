// Memory, copies, additions and the choice of matmul.
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "core/cpu/cpu_backend.h"
#include "core/cpu/fixed_order_matmul.h"
#include "core/cpu/matmul_library.h"

namespace convoy {

std::unique_ptr<Backend> make_cpu_backend(NumericsMode mode) {
  cpu::use_one_matmul_thread();
  return std::make_unique<CpuBackend>(mode);
}

void* CpuBackend::allocate_zeroed(std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  const std::size_t rounded = (bytes + kPage - 1) / kPage * kPage;
  void* data = std::aligned_alloc(kPage, rounded);
  CHECK(data != nullptr || bytes == 0, "no memory for ", bytes, " bytes");
  if (data != nullptr) std::memset(data, 0, rounded);
  return data;
}

void CpuBackend::deallocate(void* data, std::size_t) noexcept { std::free(data); }

void CpuBackend::copy(Tensor destination, Tensor source) {
  const std::size_t element = size_of(source.dtype());
  const std::size_t row_bytes = static_cast<std::size_t>(source.cols()) * element;
  auto* to = static_cast<std::byte*>(destination.data());
  const auto* from = static_cast<const std::byte*>(source.data());
  if (destination.contiguous() && source.contiguous()) {
    std::memmove(to, from, source.bytes());
    return;
  }
  for (std::int64_t i = 0; i < source.rows(); ++i) {
    std::memcpy(to + static_cast<std::size_t>(i * destination.row_stride()) * element,
                from + static_cast<std::size_t>(i * source.row_stride()) * element, row_bytes);
  }
}

namespace {

template <class To, class From>
void convert_rows(const Tensor& destination, const Tensor& source) {
  for (std::int64_t i = 0; i < source.rows(); ++i) {
    To* to = destination.row<To>(i);
    const From* from = source.row<From>(i);
    for (std::int64_t j = 0; j < source.cols(); ++j) {
      if constexpr (std::is_same_v<To, BF16>) {
        to[j] = BF16(static_cast<float>(from[j]));
      } else if constexpr (std::is_same_v<From, BF16>) {
        to[j] = static_cast<float>(from[j]);
      } else {
        to[j] = static_cast<To>(from[j]);
      }
    }
  }
}

template <class To>
void convert_from_any(const Tensor& destination, const Tensor& source) {
  switch (source.dtype()) {
    case DType::f64: return convert_rows<To, double>(destination, source);
    case DType::f32: return convert_rows<To, float>(destination, source);
    case DType::bf16: return convert_rows<To, BF16>(destination, source);
    default: CHECK(false, "no conversion from ", source.describe());
  }
}

}  // namespace

void CpuBackend::convert(Tensor destination, Tensor source) {
  switch (destination.dtype()) {
    case DType::f64: return convert_from_any<double>(destination, source);
    case DType::f32: return convert_from_any<float>(destination, source);
    case DType::bf16: return convert_from_any<BF16>(destination, source);
    default: CHECK(false, "no conversion to ", destination.describe());
  }
}

void CpuBackend::fill(Tensor destination, double value) {
  if (destination.dtype() == DType::i32) {
    for (std::int64_t i = 0; i < destination.rows(); ++i) {
      auto* row = destination.row<std::int32_t>(i);
      std::fill(row, row + destination.cols(), static_cast<std::int32_t>(value));
    }
    return;
  }
  dispatch_real(destination.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < destination.rows(); ++i) {
      T* row = destination.row<T>(i);
      std::fill(row, row + destination.cols(), static_cast<T>(value));
    }
  });
}

namespace {

template <class T>
void add_row(T* y, const T* a, const T* b, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) y[j] = a[j] + b[j];
}

template <class T>
void add_scaled_row(T* __restrict y, const T* __restrict x, T scale, std::int64_t count) {
  for (std::int64_t j = 0; j < count; ++j) y[j] += scale * x[j];
}

}  // namespace

void CpuBackend::sum(Tensor total, Tensor x) {
  const double* values = x.data<double>();
  *total.data<double>() = std::accumulate(values, values + x.size(), 0.0);
}

void CpuBackend::add(Tensor y, Tensor a, Tensor b) {
  dispatch_real(y.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < y.rows(); ++i) {
      add_row(y.row<T>(i), a.row<T>(i), b.row<T>(i), y.cols());
    }
  });
}

void CpuBackend::add_scaled(Tensor y, Tensor x, double scale) {
  dispatch_real(y.dtype(), [&]<class T>() {
    for (std::int64_t i = 0; i < y.rows(); ++i) {
      add_scaled_row(y.row<T>(i), x.row<T>(i), static_cast<T>(scale), y.cols());
    }
  });
}

void CpuBackend::matmul(Tensor c, Tensor a, Transpose transpose_a, Tensor b, Transpose transpose_b,
                        Accumulate accumulate) {
  const bool ta = transpose_a == Transpose::yes;
  const bool tb = transpose_b == Transpose::yes;
  const std::int64_t depth = ta ? a.rows() : a.cols();
  if (mode_ == NumericsMode::fast && c.dtype() == DType::f32 && depth > 0) {
    const float beta = accumulate == Accumulate::yes ? 1.0f : 0.0f;
    if (cpu::library_matmul(ta, tb, c.rows(), c.cols(), depth, a.data<float>(), a.row_stride(),
                            b.data<float>(), b.row_stride(), beta, c.data<float>(),
                            c.row_stride())) {
      return;
    }
  }
  cpu::fixed_order_matmul(scratch_, c, a, transpose_a, b, transpose_b, accumulate);
}

}  // namespace convoy
