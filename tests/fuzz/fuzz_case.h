// A random model on a random layout, drawn from a seed.
#pragma once

#include <filesystem>
#include <string>

#include "launch/config.h"

namespace convoy::test {

struct FuzzCase {
  RunConfig config;
  int ranks;

  std::string describe() const;
  // Sharding inside a micro-batch changes the order of sums, and so does the fast mode; everything
  // else keeps every bit.
  bool is_bitwise() const {
    return config.parallel.tp == 1 && config.parallel.cp == 1 &&
           config.numerics == NumericsMode::invariant;
  }
};

// The same model and data on one rank, in invariant mode.
RunConfig on_one_rank(const RunConfig& config);

// Token files of different documents, from which cases draw one: of one token each, short, long.
class FuzzData {
 public:
  // In `folder`, which exists.
  explicit FuzzData(const std::filesystem::path& folder);
  std::string file(std::uint64_t number) const;
  static constexpr std::uint64_t kFiles = 3;

 private:
  std::filesystem::path folder_;
};

// Always a valid one, of at most `most_ranks` ranks.
FuzzCase draw_case(std::uint64_t seed, int most_ranks, const FuzzData& data);

}  // namespace convoy::test
