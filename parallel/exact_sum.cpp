#include "parallel/exact_sum.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace convoy {
namespace {

using Digits = std::array<std::uint64_t, ExactSum::kLimbs>;  // each below 2^32

constexpr int kLowestExponent = -1074;  // of the unit of limb 0

std::uint64_t bits_from(const Digits& digits, int lowest, int count) {
  std::uint64_t value = 0;
  for (int b = lowest + count - 1; b >= lowest; --b) {
    value = 2 * value + ((digits[static_cast<std::size_t>(b / 32)] >> (b % 32)) & 1u);
  }
  return value;
}

bool any_below(const Digits& digits, int bit) {
  const auto limb = static_cast<std::size_t>(bit / 32);
  for (std::size_t i = 0; i < limb; ++i) {
    if (digits[i] != 0) return true;
  }
  return bit % 32 > 0 && (digits[limb] & ((std::uint64_t{1} << (bit % 32)) - 1)) != 0;
}

int bit_length(const Digits& digits) {
  for (int i = ExactSum::kLimbs - 1; i >= 0; --i) {
    const auto digit = digits[static_cast<std::size_t>(i)];
    if (digit != 0) return 32 * i + static_cast<int>(std::bit_width(digit));
  }
  return 0;
}

// The magnitude, rounded to the 53 bits of a double (fewer lie above 2^-1074 for a subnormal).
double rounded(const Digits& digits) {
  const int length = bit_length(digits);
  const int dropped = std::max(0, length - 53);
  std::uint64_t mantissa = bits_from(digits, dropped, length - dropped);
  if (dropped > 0 && bits_from(digits, dropped - 1, 1) == 1) {
    const bool above_half = any_below(digits, dropped - 1);
    if (above_half || mantissa % 2 == 1) ++mantissa;
  }
  return std::ldexp(static_cast<double>(mantissa), dropped + kLowestExponent);
}

}  // namespace

void ExactSum::add(std::span<const double> values) {
  for (std::size_t begin = 0; begin < values.size(); begin += kMostPending) {
    const auto part =
        values.subspan(begin, std::min<std::size_t>(kMostPending, values.size() - begin));
    reserve(std::ssize(part));
    for (const double x : part) deposit(x);
  }
}

void ExactSum::add(std::span<const float> values) {
  for (const float x : values) add(static_cast<double>(x));
}

void ExactSum::add_squares(std::span<const double> values) {
  for (const double x : values) add(x * x);
}

void ExactSum::add_squares(std::span<const float> values) {
  for (const float x : values) add(static_cast<double>(x) * static_cast<double>(x));
}

// Carries what exceeds 32 bits upwards; the highest limb keeps the sign.
void ExactSum::normalise() {
  for (std::size_t i = 0; i + 1 < limbs_.size(); ++i) {
    const std::int64_t carry = limbs_[i] >> 32;  // rounds down
    limbs_[i] -= carry * (std::int64_t{1} << 32);
    limbs_[i + 1] += carry;
  }
  pending_ = 1;  // a normalised limb counts as one addition
}

void ExactSum::merge(const ExactSum& other) {
  ExactSum normal = other;
  normal.normalise();
  reserve(1);
  for (std::size_t i = 0; i < limbs_.size(); ++i) limbs_[i] += normal.limbs_[i];
  nans_ += other.nans_;
  infinities_ += other.infinities_;
  minus_infinities_ += other.minus_infinities_;
}

ExactSum::Words ExactSum::words() const {
  ExactSum normal = *this;
  normal.normalise();
  Words words{};
  for (std::size_t i = 0; i < limbs_.size(); ++i) {
    words[i] = static_cast<double>(normal.limbs_[i]);
  }
  words[kLimbs] = static_cast<double>(nans_);
  words[kLimbs + 1] = static_cast<double>(infinities_);
  words[kLimbs + 2] = static_cast<double>(minus_infinities_);
  return words;
}

void ExactSum::set_words(const Words& words) {
  for (std::size_t i = 0; i < limbs_.size(); ++i) limbs_[i] = static_cast<std::int64_t>(words[i]);
  nans_ = static_cast<std::int64_t>(words[kLimbs]);
  infinities_ = static_cast<std::int64_t>(words[kLimbs + 1]);
  minus_infinities_ = static_cast<std::int64_t>(words[kLimbs + 2]);
  normalise();
}

void ExactSum::all_reduce(Communicator& ranks) {
  constexpr int kMostRanks = 1 << 20;  // each limb is below 2^32, an exact f64 below 2^53
  CHECK(ranks.size() <= kMostRanks, ranks.size(), " ranks");
  Words all = words();
  const Tensor tensor(all.data(), DType::f64, DeviceKind::cpu, {kWords});
  ranks.all_reduce(tensor, Reduction::sum).wait();
  set_words(all);
}

double ExactSum::value() const {
  if (nans_ > 0 || (infinities_ > 0 && minus_infinities_ > 0)) {
    return std::numeric_limits<double>::quiet_NaN();
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (infinities_ > 0) return kInfinity;
  if (minus_infinities_ > 0) return -kInfinity;
  ExactSum magnitude = *this;
  magnitude.normalise();
  const bool negative = magnitude.limbs_.back() < 0;
  if (negative) {
    for (auto& limb : magnitude.limbs_) limb = -limb;
    magnitude.normalise();
  }
  Digits digits;
  std::copy(magnitude.limbs_.begin(), magnitude.limbs_.end(), digits.begin());
  const double result = rounded(digits);
  return negative ? -result : result;
}

}  // namespace convoy
