// Element types. f64 is the reference, f32 trains on a CPU, bf16 is storage and what a GPU trains
// in, i32 holds tokens and positions, u16 and u32 hold tokens in files.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"

namespace convoy {

enum class DType : std::uint8_t { f64, f32, bf16, i32, u16 };

// The upper half of an f32; rounding is to nearest, ties to even.
struct BF16 {
  std::uint16_t bits = 0;

  BF16() = default;
  explicit BF16(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
    bits = std::isnan(value) ? std::uint16_t{0x7fc0} : static_cast<std::uint16_t>(rounded >> 16);
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint16_t> {
  static constexpr DType value = DType::u16;
};

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::u16: return 2;
  }
  return 0;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return "f64";
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::u16: return "u16";
  }
  return "?";
}

// The unit roundoff of a floating dtype: half the distance from 1 to the next number.
constexpr double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f64: return 0x1p-53;
    case DType::f32: return 0x1p-24;
    case DType::bf16: return 0x1p-8;
    default: return 0;
  }
}

// Calls function.template operator()<T>() with T = double or float.
template <class Function>
decltype(auto) dispatch_real(DType dtype, Function&& function) {
  if (dtype == DType::f64) return function.template operator()<double>();
  CHECK(dtype == DType::f32, "this operation takes f64 or f32, not ", name_of(dtype));
  return function.template operator()<float>();
}

}  // namespace convoy
