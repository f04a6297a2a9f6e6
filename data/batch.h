// Batch: what a model is trained on or evaluated with; all arrays are [sequences * length],
// row-major, a row being one window.
#pragma once

#include <cstdint>
#include <vector>

namespace convoy {

struct Batch {
  Batch() = default;
  Batch(std::int64_t sequence_count, std::int64_t sequence_length)
      : sequences(sequence_count),
        length(sequence_length),
        tokens(static_cast<std::size_t>(sequence_count * sequence_length)),
        targets(tokens.size()),
        document_start(tokens.size()) {}

  std::int64_t sequences = 0;
  std::int64_t length = 0;
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> targets;  // the token that follows, or -1: not counted
  std::vector<std::int32_t>
      document_start;  // window position where this position's document starts
};

}  // namespace convoy
