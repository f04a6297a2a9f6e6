// An exact sum of f64 values: a fixed-point number wide enough for every finite double and 2^63 of
// them, kept as integer limbs. Integer addition has no rounding, so the value does not depend on
// the order of the terms, nor on which rank added which; it is rounded once, when it is read.
// (The idea is Kulisch's long accumulator.)
//
// Limb i counts units of 2^(32 i - 1074). Between normalisations limbs are any i64; normalised,
// all but the highest are in [0, 2^32), which is also exact as f64: ranks add those up.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <span>

#include "parallel/communicator.h"

namespace convoy {

class ExactSum {
 public:
  static constexpr int kLimbs = 68;          // 32 * 68 bits: 2098 of a double, 63 of count, a sign
  static constexpr int kWords = kLimbs + 3;  // and how many NaN, +infinity and -infinity
  using Words = std::array<double, kWords>;

  void add(double x);
  void add(std::span<const double> values);
  void add(std::span<const float> values);
  // Squares of f32 are exact in f64; those of f64 are each rounded, alike on every rank.
  void add_squares(std::span<const double> values);
  void add_squares(std::span<const float> values);

  void merge(const ExactSum& other);
  // The sum of all ranks, on every rank. Sums of f64 integers below 2^53, so in any order.
  void all_reduce(Communicator& ranks);

  // Rounded to nearest, ties to even. As for IEEE addition: NaN where there was a NaN or both
  // infinities; +0 for nothing.
  double value() const;

  // For whoever reduces several sums in one message.
  Words words() const;
  void set_words(const Words& words);

 private:
  // Each addition changes a limb by less than 2^32, so 2^30 of them fit between normalisations.
  static constexpr std::int64_t kMostPending = std::int64_t{1} << 30;

  void deposit(double x);
  void reserve(std::int64_t additions);
  void normalise();

  std::array<std::int64_t, kLimbs> limbs_{};
  std::int64_t pending_ = 0;  // additions since the last normalisation
  std::int64_t nans_ = 0, infinities_ = 0, minus_infinities_ = 0;
};

inline void ExactSum::deposit(double x) {
  constexpr std::uint64_t kMantissa = (std::uint64_t{1} << 52) - 1;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const auto exponent = static_cast<std::uint32_t>(bits >> 52) & 0x7ffu;
  if (exponent == 0x7ffu) [[unlikely]] {
    ++((bits & kMantissa) != 0 ? nans_ : x > 0 ? infinities_ : minus_infinities_);
    return;
  }
  // The mantissa as an integer, `shift` bits above the lowest; subnormals share exponent 1.
  const std::uint64_t normal = exponent != 0 ? 1 : 0;
  const std::uint64_t mantissa = (bits & kMantissa) | (normal << 52);
  const auto shift = exponent - static_cast<std::uint32_t>(normal);
  const std::uint32_t within = shift % 32;
  const std::uint64_t low = mantissa << within;                            // bits 0..63 of 84
  const std::uint64_t high = within == 0 ? 0 : mantissa >> (64 - within);  // bits 64..
  const auto sign = static_cast<std::int64_t>(bits) >> 63;                 // 0 or -1
  const auto with_sign = [sign](std::uint64_t digit) {
    return (static_cast<std::int64_t>(digit) ^ sign) - sign;
  };
  std::int64_t* limb = &limbs_[shift / 32];
  limb[0] += with_sign(low & 0xffffffffu);
  limb[1] += with_sign(low >> 32);
  limb[2] += with_sign(high);
}

inline void ExactSum::add(double x) {
  reserve(1);
  deposit(x);
}

inline void ExactSum::reserve(std::int64_t additions) {
  if (pending_ + additions > kMostPending) normalise();
  pending_ += additions;
}

}  // namespace convoy
