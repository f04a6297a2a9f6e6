#include "data/sample_order.h"

#include <bit>

#include "core/error.h"
#include "core/random.h"

namespace convoy {
namespace {

constexpr std::uint64_t kRounds = 6;

// A Feistel network permutes the numbers of 2 * half_bits bits, whatever its round function
// (Luby and Rackoff, 1988).
std::uint64_t feistel(std::uint64_t value, int half_bits, std::uint64_t key) {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits) - 1;
  std::uint64_t left = value >> half_bits, right = value & mask;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    const std::uint64_t mixed = mix64(key ^ mix64(right ^ round << 56)) & mask;
    const std::uint64_t next = left ^ mixed;
    left = right;
    right = next;
  }
  return left << half_bits | right;
}

}  // namespace

std::int64_t permuted(std::int64_t index, std::int64_t size, std::uint64_t key) {
  const auto bound = static_cast<std::uint64_t>(size);
  const int half_bits = (static_cast<int>(std::bit_width(bound - 1)) + 1) / 2;
  auto value = static_cast<std::uint64_t>(index);
  // Cycle walking (Black and Rogaway, 2002): the network's domain is less than 4 times too large;
  // values outside are permuted again until one falls inside.
  do value = feistel(value, half_bits, key);
  while (value >= bound);
  return static_cast<std::int64_t>(value);
}

SampleOrder::SampleOrder(std::uint64_t seed, std::int64_t windows)
    : seed_(seed), windows_(windows) {
  CHECK(windows > 0, "an order of ", windows, " windows");
}

std::int64_t SampleOrder::window(std::int64_t sample) const {
  CHECK(sample >= 0, "sample ", sample);
  const std::int64_t epoch = sample / windows_;
  return permuted(sample % windows_, windows_,
                  mix64(seed_) ^ mix64(~static_cast<std::uint64_t>(epoch)));
}

}  // namespace convoy
