// The reference is an integer of 80 words of 32 bits, added and rounded by other means: schoolbook
// addition in two's complement, and rounding by comparing candidates.
#include "parallel/exact_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "parallel/thread_communicator.h"

namespace convoy {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSmallest = std::numeric_limits<double>::denorm_min();
constexpr double kLargest = std::numeric_limits<double>::max();

// Two's complement, unit 2^-1074.
class Integer {
 public:
  static Integer of(double x) {
    Integer result;
    int exponent = 0;
    auto mantissa = static_cast<std::uint64_t>(std::ldexp(std::frexp(std::abs(x), &exponent), 53));
    int bit = exponent - 53 + 1074;
    while (bit < 0) {  // a subnormal has that many zeros at its end
      mantissa /= 2;
      ++bit;
    }
    for (; mantissa != 0; mantissa /= 2, ++bit) {
      if (mantissa % 2 == 1) result.words_[std::size_t(bit / 32)] |= 1u << (bit % 32);
    }
    return x < 0 ? -result : result;
  }
  Integer operator-() const {
    Integer result, one;
    for (std::size_t i = 0; i < words_.size(); ++i) result.words_[i] = ~words_[i];
    one.words_[0] = 1;
    return result + one;
  }
  Integer operator+(const Integer& other) const {
    Integer result;
    std::uint64_t carry = 0;
    for (std::size_t i = 0; i < words_.size(); ++i, carry >>= 32) {
      carry += std::uint64_t{words_[i]} + other.words_[i];
      result.words_[i] = static_cast<std::uint32_t>(carry);
    }
    return result;
  }
  bool negative() const { return words_.back() >> 31 != 0; }
  bool operator==(const Integer&) const = default;
  Integer absolute() const { return negative() ? -*this : *this; }
  bool operator<(const Integer& other) const { return (*this + -other).negative(); }

 private:
  std::array<std::uint32_t, 80> words_{};
};

// Whether `x` is the double nearest to `exact`, ties to even.
bool is_nearest(double x, const Integer& exact) {
  const Integer error = (exact + -Integer::of(x)).absolute();
  for (const double neighbour : {std::nextafter(x, kInfinity), std::nextafter(x, -kInfinity)}) {
    if (std::isinf(neighbour)) continue;
    const Integer other = (exact + -Integer::of(neighbour)).absolute();
    if (other < error) return false;
    const bool odd = (std::bit_cast<std::uint64_t>(x) & 1) != 0;
    if (other == error && odd) return false;
  }
  return true;
}

double exact_sum(const std::vector<double>& terms) {
  ExactSum sum;
  sum.add(terms);
  return sum.value();
}

// Terms of all magnitudes, half of which nearly cancel.
std::vector<double> hard_terms(std::mt19937_64& random, std::size_t n, int largest_exponent) {
  std::uniform_real_distribution<double> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-1080, largest_exponent);
  std::vector<double> terms;
  while (terms.size() < n) {
    terms.push_back(std::ldexp(mantissa(random), exponent(random)));
    if (random() % 2 == 0) terms.push_back(-std::nextafter(terms.back(), 0));
  }
  return terms;
}

TEST(ExactSum, IsTheDoubleNearestToTheExactSum) {
  std::mt19937_64 random(1);
  for (int repeat = 0; repeat < 200; ++repeat) {
    const int largest = static_cast<int>(random() % 2080) - 1060;
    const auto terms = hard_terms(random, 1 + random() % 40, largest);
    Integer exact;
    for (const double term : terms) exact = exact + Integer::of(term);
    ASSERT_TRUE(is_nearest(exact_sum(terms), exact)) << repeat;
  }
}

TEST(ExactSum, RoundsTiesToEvenAndSeesWhatLiesFarBelow) {
  EXPECT_EQ(exact_sum({1, 0x1p-53}), 1);
  EXPECT_EQ(exact_sum({1, 0x1p-53, kSmallest}), 1 + 0x1p-52);
  EXPECT_EQ(exact_sum({1, 0x1p-53, -kSmallest}), 1);
  EXPECT_EQ(exact_sum({1 + 0x1p-52, 0x1p-53}), 1 + 0x1p-51);
  EXPECT_EQ(exact_sum({0x1.fffffffffffffp0, 0x1p-53}), 2);
  EXPECT_EQ(exact_sum({-1, -0x1p-53, -kSmallest}), -1 - 0x1p-52);
}

TEST(ExactSum, CancelsExactly) {
  EXPECT_EQ(exact_sum({1e300, 1e-300, -1e300}), 1e-300);
  EXPECT_EQ(exact_sum({kLargest, kLargest, -kLargest, kSmallest, -kLargest}), kSmallest);
  EXPECT_EQ(exact_sum({0.1, -0.1}), 0);
  EXPECT_FALSE(std::signbit(exact_sum({-0.0, 0.1, -0.1})));
  EXPECT_EQ(exact_sum({}), 0);
}

TEST(ExactSum, PassesSubnormalsAndTheLargestThrough) {
  for (const double x : {kSmallest, 3 * kSmallest, 0x1p-1022, 0x1p-1022 - kSmallest, kLargest, 1.0,
                         0.1, 1e300, 1e-300}) {
    EXPECT_EQ(exact_sum({x}), x);
    EXPECT_EQ(exact_sum({-x}), -x);
  }
  EXPECT_EQ(exact_sum({kLargest, kLargest}), kInfinity);
  EXPECT_EQ(exact_sum({-kLargest, -0x1p970}), -kInfinity);  // half of an ulp above the largest
}

TEST(ExactSum, TreatsInfinitiesAndNanAsAdditionDoes) {
  EXPECT_EQ(exact_sum({kInfinity, -1e300}), kInfinity);
  EXPECT_EQ(exact_sum({-kInfinity, 1}), -kInfinity);
  EXPECT_TRUE(std::isnan(exact_sum({kInfinity, -kInfinity})));
  EXPECT_TRUE(std::isnan(exact_sum({1, std::nan(""), 2})));
}

TEST(ExactSum, EveryOrderAndPartitionGivesTheSameBits) {
  std::mt19937_64 random(2);
  auto terms = hard_terms(random, 300, 900);
  const auto expected = std::bit_cast<std::uint64_t>(exact_sum(terms));
  for (int repeat = 0; repeat < 50; ++repeat) {
    std::shuffle(terms.begin(), terms.end(), random);
    std::vector<ExactSum> parts(1 + random() % 9);
    for (const double term : terms) parts[random() % parts.size()].add(term);
    ExactSum total;
    for (const auto& part : parts) total.merge(part);
    ASSERT_EQ(std::bit_cast<std::uint64_t>(total.value()), expected) << repeat;
  }
}

TEST(ExactSum, EveryNumberOfRanksGivesTheSameBits) {
  std::mt19937_64 random(3);
  const auto terms = hard_terms(random, 200, 1000);
  const auto expected = std::bit_cast<std::uint64_t>(exact_sum(terms));
  for (const int ranks : {1, 2, 3, 5}) {
    run_on_threads(ranks, [&](Communicator& c) {
      ExactSum sum;
      for (std::size_t i = std::size_t(c.rank()); i < terms.size(); i += std::size_t(c.size())) {
        sum.add(terms[i]);
      }
      sum.all_reduce(c);
      EXPECT_EQ(std::bit_cast<std::uint64_t>(sum.value()), expected);
      if (c.rank() == 0) sum.add(kInfinity);  // and it can go on
      sum.add(-1);
      ExactSum more;
      if (c.rank() == 0) more.add(kInfinity);
      more.all_reduce(c);
      EXPECT_EQ(more.value(), kInfinity);
    });
  }
}

TEST(ExactSum, ManyMergesDoNotOverflow) {
  ExactSum one, total;
  one.add(std::vector<double>{-1, kLargest, -0.1});
  for (int i = 0; i < 1000; ++i) total.merge(one);
  total.add(std::vector<double>(1000, -kLargest));
  total.add(std::vector<double>(1000, 0.1));
  EXPECT_EQ(total.value(), -1000);
}

TEST(ExactSum, SquaresOfFloatsAreExact) {
  const std::vector<float> values = {1e-30F, 3.0F, -0.1F, 1e19F};
  std::vector<double> squares;
  for (const float x : values) squares.push_back(double(x) * double(x));
  ExactSum sum, of_doubles;
  sum.add_squares(std::span<const float>(values));
  EXPECT_EQ(sum.value(), exact_sum(squares));
  of_doubles.add_squares(std::span<const double>(squares));
  sum = {};
  sum.add(std::span<const float>(values));
  EXPECT_EQ(sum.value(), exact_sum({values.begin(), values.end()}));
  for (double& x : squares) x *= x;
  EXPECT_EQ(of_doubles.value(), exact_sum(squares));
}

}  // namespace
}  // namespace convoy
