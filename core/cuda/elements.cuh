// Element types on the device: storage in f64, f32 or bf16, arithmetic in f64 or f32; packs of
// elements that one instruction moves; and the choice of a template by a tensor's dtype.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/cuda/cuda_check.h"
#include "core/scalar_math.h"
#include "core/tensor.h"

namespace convoy::cuda {

using bf16 = __nv_bfloat16;

template <class T>
struct Arithmetic {
  using type = T;
};
template <>
struct Arithmetic<bf16> {
  using type = float;
};
template <class T>
using Wide = typename Arithmetic<T>::type;  // what T is computed in

template <class T>
__host__ __device__ inline Wide<T> widen(T x) {
  return x;
}
template <>
__host__ __device__ inline float widen<bf16>(bf16 x) {
  return __bfloat162float(x);
}
template <class T>
__host__ __device__ inline T narrow(Wide<T> x) {
  return x;
}
template <>
__host__ __device__ inline bf16 narrow<bf16>(float x) {
  return __float2bfloat16_rn(x);
}

// V neighbours, loaded and stored as one.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T element[V];
};
// The machine's own type of so many bytes. A pack goes through it as a whole: left to copy an
// array, the compiler at times stores each element alone.
template <int Bytes>
struct Word {
  using type = void;
};
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = std::uint32_t;
};
template <>
struct Word<2> {
  using type = std::uint16_t;
};

template <int V, class T>
__device__ inline Pack<T, V> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}
template <class T, int V>
__device__ inline void store_pack(T* p, const Pack<T, V>& pack) {
  using W = typename Word<sizeof(pack)>::type;
  if constexpr (std::is_void_v<W>) {
    *reinterpret_cast<Pack<T, V>*>(p) = pack;
  } else {
    W word;
    memcpy(&word, &pack, sizeof word);
    *reinterpret_cast<W*>(p) = word;
  }
}

// All of a pack in what it is computed in; for bf16 one instruction an element.
template <class T, int V>
__device__ inline Pack<Wide<T>, V> widened(const Pack<T, V>& pack) {
  Pack<Wide<T>, V> wide;
  if constexpr (std::is_same_v<T, bf16> && V % 2 == 0) {
    std::uint32_t pairs[V / 2];
    memcpy(pairs, &pack, sizeof pairs);
#pragma unroll
    for (int i = 0; i < V / 2; ++i) {
      wide.element[2 * i] = __uint_as_float(pairs[i] << 16);
      wide.element[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e) wide.element[e] = widen(pack.element[e]);
  }
  return wide;
}

// A matrix as a kernel sees it.
template <class T>
struct Rows {
  T* data = nullptr;
  std::int64_t stride = 0;

  __device__ T* row(std::int64_t i) const { return data + i * stride; }
};

template <class T>
T* data_of(const Tensor& t) {
  return t.data<T>();
}
template <>
inline bf16* data_of<bf16>(const Tensor& t) {
  return reinterpret_cast<bf16*>(t.data<BF16>());
}
template <class T>
Rows<T> rows_of(const Tensor& t) {
  return t.empty() ? Rows<T>{} : Rows<T>{data_of<T>(t), t.row_stride()};
}
template <class T>
Rows<const T> read_rows(const Tensor& t) {
  return t.empty() ? Rows<const T>{} : Rows<const T>{data_of<T>(t), t.row_stride()};
}

// Calls function.template operator()<T>() with T = double, float or bf16.
template <class Function>
decltype(auto) dispatch_element(DType dtype, Function&& function) {
  if (dtype == DType::f64) return function.template operator()<double>();
  if (dtype == DType::f32) return function.template operator()<float>();
  CHECK(dtype == DType::bf16, "this operation takes f64, f32 or bf16, not ", name_of(dtype));
  return function.template operator()<bf16>();
}

// Whether every row of every tensor may be walked in packs of `bytes`.
inline bool packable(int bytes, std::initializer_list<Tensor> tensors) {
  for (const Tensor& t : tensors) {
    const auto element = static_cast<std::int64_t>(size_of(t.dtype()));
    if (reinterpret_cast<std::uintptr_t>(t.data()) % static_cast<std::uintptr_t>(bytes) != 0 ||
        t.row_stride() * element % bytes != 0 || t.cols() * element % bytes != 0) {
      return false;
    }
  }
  return true;
}

inline void check_launch() { CUDA_CHECK(cudaGetLastError()); }

template <class Integer>
constexpr Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

}  // namespace convoy::cuda
