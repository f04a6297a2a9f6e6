#include "core/random.h"

#include <cmath>
#include <numbers>

namespace convoy {

RandomStream::RandomStream(std::uint64_t seed, std::string_view name) : key_(mix64(seed)) {
  for (const char c : name) key_ = mix64(key_ ^ static_cast<unsigned char>(c));
}

std::array<std::uint32_t, 4> RandomStream::bits(std::uint64_t index) const {
  std::array<std::uint32_t, 4> c{static_cast<std::uint32_t>(index),
                                 static_cast<std::uint32_t>(index >> 32), 0, 0};
  auto key0 = static_cast<std::uint32_t>(key_);
  auto key1 = static_cast<std::uint32_t>(key_ >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(product1 >> 32) ^ c[1] ^ key0,
         static_cast<std::uint32_t>(product1),
         static_cast<std::uint32_t>(product0 >> 32) ^ c[3] ^ key1,
         static_cast<std::uint32_t>(product0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return c;
}

namespace {
// 53 bits of two words as a number in [0, 1).
double to_unit(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t word = (std::uint64_t{high} << 32 | low) >> 11;
  return static_cast<double>(word) * 0x1p-53;
}
}  // namespace

double RandomStream::uniform(std::uint64_t index) const {
  const auto word = bits(index);
  return to_unit(word[0], word[1]);
}

double RandomStream::normal(std::uint64_t index) const {
  const auto word = bits(index);
  const double radius = std::sqrt(-2.0 * std::log(1.0 - to_unit(word[0], word[1])));
  return radius * std::cos(2.0 * std::numbers::pi * to_unit(word[2], word[3]));
}

}  // namespace convoy
