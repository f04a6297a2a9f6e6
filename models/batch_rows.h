// The rows of a micro-batch that one rank works on, cut from the whole on the host: a pure function
// of the rank's place. Positions and document starts stay those of the whole window, so that
// nothing later depends on where the cuts are.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/sharding.h"

namespace convoy {

// B windows of T positions, row-major.
struct WholeBatch {
  std::int64_t sequences, length;
  std::span<const std::int32_t> tokens;
  std::span<const std::int32_t> targets;         // -1 where a row does not count
  std::span<const std::int32_t> document_start;  // position where the row's document starts
};

// What a BatchView shows, in host memory.
struct BatchRows {
  std::int64_t sequences, length;  // length: rows of a sequence on this rank
  std::vector<std::int32_t> tokens, targets, positions, document_start, reach;
  std::vector<std::int32_t> own_reach;
};

// A window whose length cannot be split evenly is padded at its end: padded rows are a document of
// their own whose targets do not count, so that no other row sees them.
BatchRows rows_of_rank(const WholeBatch& batch, const Sharding& sharding);
void fill_rows(BatchRows& rows, const WholeBatch& batch, const Sharding& sharding);

// The same of Labels, from a rank's targets.
struct LabelRows {
  std::vector<std::int32_t> rows, targets, place;
};
void fill_labels(LabelRows& labels, std::span<const std::int32_t> targets);

// The length to which a window is padded.
std::int64_t padded_length(std::int64_t length, const Sharding& sharding);

// Where the rows of a rank stand in the whole, padded batch: the index of each row of `tokens`.
std::vector<std::int64_t> row_indices(std::int64_t sequences, const RowLayout& layout, int rank);

}  // namespace convoy
