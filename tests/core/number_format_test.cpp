// All of BF16, the exponential near the ends of its range, and the generator of randomness against
// the published test values of Philox.
#include <algorithm>
#include <array>

#include "core/scalar_math.h"
#include "tests/core/op_test_tools.h"

namespace convoy::test {
namespace {

float value_of(std::uint32_t bf16_bits) { return std::bit_cast<float>(bf16_bits << 16); }

TEST(BF16, EveryNumberKeepsItsBits) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = value_of(bits);
    if (std::isnan(x)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(BF16(x)))) << bits;
    } else {
      ASSERT_EQ(BF16(x).bits, bits);
    }
  }
}

// Between each pair of neighbours: a little below the middle, the middle, a little above it.
TEST(BF16, BetweenEveryTwoNeighboursTheNearerWinsAndTheMiddleGoesToEven) {
  for (std::uint32_t bits = 0; bits < 0x7f80; ++bits) {  // up to infinity; signs behave alike
    for (const std::uint32_t sign : {0u, 0x8000u}) {
      const std::uint32_t low = bits | sign;
      const auto rounded = [&](std::uint32_t tail) {
        return std::uint32_t{BF16(std::bit_cast<float>((low << 16) | tail)).bits};
      };
      ASSERT_EQ(rounded(0x7fff), low);
      ASSERT_EQ(rounded(0x8000), low + (bits & 1));
      ASSERT_EQ(rounded(0x8001), low + 1);
    }
  }
}

TEST(BF16, EveryNaNStaysNaN) {
  for (std::uint32_t tail = 1; tail < 0x800000; tail = tail * 3 + 1) {
    for (const std::uint32_t sign : {0u, 0x80000000u}) {
      const auto x = std::bit_cast<float>(sign | 0x7f800000u | tail);
      ASSERT_TRUE(std::isnan(static_cast<float>(BF16(x)))) << tail;
    }
  }
}

// e^r is cut after r^6 / 720, so at |r| = ln 2 / 2 it lacks r^7 / 5040, a relative 2.8 u; the last
// steps of Horner's rule and the two parts of ln 2 add two more roundings at most, FMA or not.
TEST(Exponential, StaysWithinItsTruncationAndTwoRoundingsOverItsRange) {
  double worst = 0;
  for (std::uint32_t bits = 0; bits < 0x42b00000u; bits += 1009) {  // 0 to 88, all scales
    for (const float sign : {1.0f, -1.0f}) {
      const float x = sign * std::bit_cast<float>(bits);
      if (x < -87.0f) continue;
      const double exact = std::exp(static_cast<double>(x));
      worst = std::max(worst, std::abs(static_cast<double>(exponential(x)) - exact) / exact);
    }
  }
  const double r = std::log(2) / 2;
  const double truncation = std::pow(r, 7) / 5040 * std::exp(r);
  EXPECT_LE(worst, truncation + 2 * unit_roundoff(DType::f32));
}

TEST(Exponential, IsZeroBelowItsRangeAndInfiniteAboveIt) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float x : {std::nextafter(-87.0f, -100.0f), -88.0f, -104.0f, -1e4f, -1e30f,
                        std::numeric_limits<float>::lowest(), -infinity}) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(exponential(x)), 0u) << x;
  }
  for (const float x : {89.0f, 1e4f, std::numeric_limits<float>::max(), infinity}) {
    EXPECT_EQ(exponential(x), infinity) << x;
  }
  EXPECT_GT(exponential(-87.0f), 0.0f);
  EXPECT_LT(exponential(88.0f), infinity);
  EXPECT_EQ(exponential(-0.0f), 1.0f);
}

// Salmon et al.'s known answers, for the streams' own use of the counter: (index, 0) under a key.
// A key of all zeros cannot be asked for by a name, so the rounds are written out once more here.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::uint32_t k0,
                                    std::uint32_t k1) {
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t b = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(b),
         static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(a)};
  }
  return c;
}

TEST(RandomStream, IsPhiloxByItsKnownAnswers) {
  using Words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox({0, 0, 0, 0}, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffff, 0xffffffff),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  const std::uint64_t key = mix64(mix64(11) ^ static_cast<unsigned char>('w'));
  for (const std::uint64_t index : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 40}) {
    const auto low = static_cast<std::uint32_t>(index),
               high = static_cast<std::uint32_t>(index >> 32);
    EXPECT_EQ(RandomStream(11, "w").bits(index),
              philox({low, high, 0, 0}, static_cast<std::uint32_t>(key),
                     static_cast<std::uint32_t>(key >> 32)));
  }
}

// Of 9,000 draws of 64 bits, two are equal by chance once in 10^11 runs.
TEST(RandomStream, NearSeedsAndNearNamesShareNoDraws) {
  std::vector<std::uint64_t> words;
  for (const char* name : {"", "a", "b", "aa", "layers.1.wq", "layers.11.wq"}) {
    for (const std::uint64_t seed : {0, 1, 2}) {
      const RandomStream stream(seed, name);
      for (std::uint64_t i = 0; i < 500; ++i) {
        const auto w = stream.bits(i);
        words.push_back(std::uint64_t{w[0]} << 32 | w[1]);
      }
    }
  }
  std::sort(words.begin(), words.end());
  EXPECT_EQ(std::adjacent_find(words.begin(), words.end()), words.end());
}

TEST(Convert, ToBF16AndBackRoundsOnce) {
  Workbench bench(DType::f32);
  Tensor x = bench.random({7, 13}, 1, Layout::strided), back = bench.output({7, 13});
  Tensor small = bench.arena().take(DType::bf16, {7, 13});
  bench.backend().convert(small, x);
  bench.backend().convert(back, small);
  for (std::int64_t i = 0; i < 7; ++i) {
    for (std::int64_t j = 0; j < 13; ++j) {
      ASSERT_EQ(at(back, i, j), static_cast<double>(static_cast<float>(BF16(x.row<float>(i)[j]))));
      ASSERT_NEAR(at(back, i, j), at(x, i, j), unit_roundoff(DType::bf16) * std::abs(at(x, i, j)));
    }
  }
}

}  // namespace
}  // namespace convoy::test
