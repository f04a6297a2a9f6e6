// Counter-based randomness: a value is a function of (seed, name, index) and of nothing that was
// drawn before, so every layout of ranks starts from the same model, each rank computing only its
// own part. The generator is Philox-4x32-10 (Salmon et al., SC 2011).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace convoy {

class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);

  std::array<std::uint32_t, 4> bits(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;  // in [0, 1)
  double normal(std::uint64_t index) const;   // mean 0, standard deviation 1 (Box-Muller)

 private:
  std::uint64_t key_;
};

// A good 64-bit mixing function (the finaliser of SplitMix64).
constexpr std::uint64_t mix64(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace convoy
